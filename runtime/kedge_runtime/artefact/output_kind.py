"""Find the output type of a foreign model: by its last operator, else by its outputs."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Input
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.classify.results import check_finite
from kedge_runtime.engines.base import Engine
from kedge_runtime.errors import UsageError
from kedge_runtime.image.folder import render_images
from kedge_runtime.image.objects import Source
from kedge_runtime.image.preprocessing import Preprocessor, dequantise
from kedge_runtime.modelfile.network import Network

# The number of rendered images that are run.
PROBES = 8
# Probabilities add up to 1 within SUM in float32, and within SUM_OF_INTEGERS at most in integers.
SUM, SUM_OF_INTEGERS = 1e-3, 0.1
# Last operator that computes -> kind; LOG_SOFTMAX gives logits, too.
KINDS: Final[dict[str, Kind]] = {
    "SOFTMAX": "softmax",
    "Softmax": "softmax",
    "LOGISTIC": "sigmoid",
    "Sigmoid": "sigmoid",
    "LOG_SOFTMAX": "logits",
    "LogSoftmax": "logits",
}
# Operators that do not change what the numbers mean.
CARRYING: Final = frozenset(
    {"QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST"}
    | {"QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Flatten", "Cast", "Identity"}
)


def kind_of_last_operator(network: Network) -> Kind | None:
    """Return the kind that the last operator which computes gives, None where it may be any."""
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


def probe_outputs(engine: Engine, spec: Input) -> Floats:
    """Return the model's outputs for a few rendered images, float32 [images, outputs]."""
    images = render_images(spec.geometry.height, spec.geometry.width, PROBES)
    return run_images(engine, spec, images)


def run_images(engine: Engine, spec: Input, images: Sequence[Source]) -> Floats:
    """Return the model's outputs for images, float32 [images, outputs].

    Raises EngineError when an output isn't finite.
    """
    preprocessor = Preprocessor(spec)
    tensors = (preprocessor.tensor(preprocessor.read(image)) for image in images)
    rows = map(engine.run, tensors)
    return np.stack([check_finite(dequantise(row, engine.output).reshape(-1)) for row in rows])


def sums_to_one(values: Floats, engine: Engine) -> bool:
    """Return whether all rows of float32 [images, outputs] are probabilities that add up to 1."""
    tolerance = SUM
    if quantisation := engine.output.quantisation:
        # Each of the integers may be half a step off.
        tolerance = min(max(SUM, values.shape[1] * quantisation.scale / 2), SUM_OF_INTEGERS)
    sums = values.sum(axis=1, dtype=np.float64)
    return bool(_within(values) and (np.abs(sums - 1) <= tolerance).all())


def _within(values: Floats) -> bool:
    return bool(values.min() >= -SUM and values.max() <= 1 + SUM)


def check_head(spec: Input, engine: Engine, kind: Kind) -> None:
    """Raise UsageError where the model's outputs contradict the kind."""
    if kind == "features":
        return
    values = probe_outputs(engine, spec)
    if kind in ("softmax", "sigmoid") and not _within(values):
        raise UsageError(
            f"--head {kind}: its outputs range from {values.min():.3g} to {values.max():.3g}, "
            "probabilities are 0 to 1: give --head logits"
        )
    if kind == "logits" and values.shape[1] > 1 and sums_to_one(values, engine):
        raise UsageError(
            "--head logits: its outputs are within 0..1 and add up to 1: give --head softmax"
        )
