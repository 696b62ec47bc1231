"""From an exported model to a sealed file: contract and golden set, filled in from the facts."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from kedge_convert.export.exported import Way
from kedge_convert.images import Photos
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Contract, Provenance
from kedge_runtime.engines.base import Engine
from kedge_runtime.image.preprocessing import Preprocessor

# By the name of their distribution; TensorFlow has several, so its module tells.
TOOLS = ("keras", "tf_keras", "tf2onnx", "onnx", "onnxruntime", "numpy", "opencv-python-headless")


def reference_answers(source: Source, pictures: Sequence[bytes]) -> Floats:
    """Return the float original's logits for encoded pictures."""
    plan = Preprocessor(source.input)
    return source.logits(plan.tensor(plan.read(picture)) for picture in pictures)


def contract_of(
    source: Source, target: Target, engine: Engine, photos: Photos, way: Way | None = None
) -> Contract:
    """Return the contract of an exported model; its tensors are what the engine says they are."""
    way = way or Way(target.precision)
    calibrated = photos.calibration if target.needs_calibration else ()
    return Contract(
        input=replace(source.input, tensor=engine.input),
        output=replace(source.output, tensor=engine.output),
        labels=source.labels,
        provenance=Provenance(
            source=source.name,
            weights_digest=source.weights_digest,
            precision=way.precision,
            target=str(target),
            card=source.card,
            parameters=source.parameters,
            method=way.method,
            ranges=way.ranges,
            kept=way.kept,
            device=way.device,
            head=source.head,
            output=source.chosen,
            signature=source.signature,
            calibration_digest=photos.calibration_digest() if calibrated else "",
            calibration_count=len(calibrated),
            tools=tool_versions(),
        ),
    )


def tool_versions() -> dict[str, str]:
    """Return the versions of everything that has a part in an artefact's bytes."""
    tensorflow = {"tensorflow": str(require("tensorflow").__version__)}
    return tensorflow | {name: version(name) for name in TOOLS}
