"""What a foreign model's numbers are: told by its last operator, else by its answers."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Input, Kind
from kedge_runtime.classify.outputs import check_finite
from kedge_runtime.engines.base import Engine
from kedge_runtime.errors import UsageError
from kedge_runtime.image.decode import Source
from kedge_runtime.image.folder import rendered
from kedge_runtime.image.preprocessing import Preprocessor, dequantise
from kedge_runtime.modelfile.network import Network

# Images whose answers tell the kind of output.
PROBES = 8
# Probabilities of float32 add up to 1 within this; of integers within this at most.
SUM, SUM_OF_INTEGERS = 1e-3, 0.1
# By the last operator that computes; LOG_SOFTMAX's numbers are logits, too.
KINDS: Final[dict[str, Kind]] = {
    "SOFTMAX": "softmax",
    "Softmax": "softmax",
    "LOGISTIC": "sigmoid",
    "Sigmoid": "sigmoid",
    "LOG_SOFTMAX": "logits",
    "LogSoftmax": "logits",
}
# What carries numbers on without changing what they mean.
CARRYING: Final = frozenset(
    {"QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST"}
    | {"QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Flatten", "Cast", "Identity"}
)


def last_kind(network: Network) -> Kind | None:
    """Return what the last operator that computes makes of the output, None where it may be any."""
    producers = network.producers()
    place = producers.get(network.outputs[0]) if network.outputs else None
    for _ in network.operators:
        if place is None:
            return None
        operator = network.operators[place]
        if operator.kind not in CARRYING:
            return KINDS.get(operator.kind)
        place = producers.get(operator.inputs[0]) if operator.inputs else None
    return None


def probed(engine: Engine, spec: Input) -> Floats:
    """Return the model's numbers for a few rendered images, float32 [images, outputs]."""
    images = rendered(spec.geometry.height, spec.geometry.width, PROBES)
    return answers(engine, spec, images)


def answers(engine: Engine, spec: Input, images: Sequence[Source]) -> Floats:
    """Return the model's numbers for images, float32 [images, outputs].

    Raises EngineError when one isn't finite.
    """
    plan = Preprocessor(spec)
    rows = (engine.run(plan.tensor(plan.read(image))) for image in images)
    return np.stack([check_finite(dequantise(row, engine.output).reshape(-1)) for row in rows])


def adds_up(values: Floats, engine: Engine) -> bool:
    """Whether all answers are probabilities of exclusive classes."""
    tolerance = SUM
    if found := engine.output.quantisation:
        # Each of so many integers may be half a step off.
        tolerance = min(max(SUM, values.shape[1] * found.scale / 2), SUM_OF_INTEGERS)
    sums = values.sum(axis=1, dtype=np.float64)
    return bool(_within(values) and (np.abs(sums - 1) <= tolerance).all())


def _within(values: Floats) -> bool:
    return bool(values.min() >= -SUM and values.max() <= 1 + SUM)


def refuse_other(name: str, spec: Input, engine: Engine, kind: Kind) -> None:
    """Raise UsageError where the answers themselves say that the kind isn't right."""
    if kind == "features":
        return
    values = probed(engine, spec)
    if kind in ("softmax", "sigmoid") and not _within(values):
        raise UsageError(
            f"--head {kind}: {name} answers from {values.min():.3g} to {values.max():.3g}, "
            "probabilities are 0 to 1: say --head logits"
        )
    if kind == "logits" and values.shape[1] > 1 and adds_up(values, engine):
        raise UsageError(
            f"--head logits: the answers of {name} are within 0..1 and add up to 1: say "
            "--head softmax"
        )
