"""Fill in the contract of an exported model, and the float model's answers for its golden set."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from kedge_convert.export.exported import Recipe
from kedge_convert.images import ImageSplit
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.provenance import Provenance
from kedge_runtime.engines.base import Engine
from kedge_runtime.image.preprocessing import Preprocessor

# By the name of their distribution; TensorFlow has several, so its module tells.
TOOLS = ("keras", "tf_keras", "tf2onnx", "onnx", "onnxruntime", "numpy", "opencv-python-headless")


def reference_answers(source: Source, images: Sequence[bytes]) -> Floats:
    """Return the float model's logits for encoded images."""
    plan = Preprocessor(source.input)
    return source.logits(plan.tensor(plan.read(image)) for image in images)


def contract_of(
    source: Source,
    target: Target,
    engine: Engine,
    images: ImageSplit,
    recipe: Recipe | None = None,
) -> Contract:
    """Return the contract of an exported model, with the tensors that the engine reports."""
    recipe = recipe or Recipe(target.precision)
    calibrated = images.calibration if target.needs_calibration else ()
    return Contract(
        input=replace(source.input, tensor=engine.input),
        output=replace(source.output, tensor=engine.output),
        labels=source.labels,
        provenance=Provenance(
            source=source.name,
            weights_digest=source.weights_digest,
            precision=recipe.precision,
            target=str(target),
            card=source.card,
            parameters=source.parameters,
            method=recipe.method,
            ranges=recipe.ranges,
            kept=recipe.float_layers,
            copied=recipe.copied_layers,
            device=recipe.device,
            head=source.head,
            output=source.chosen,
            signature=source.signature,
            calibration_digest=images.calibration_digest() if calibrated else "",
            calibration_count=len(calibrated),
            calibration_images=images.calibration_marks() if calibrated else (),
            tools=tool_versions(),
        ),
    )


def tool_versions() -> dict[str, str]:
    """Return the versions of all tools that shape an artefact's bytes."""
    tensorflow = {"tensorflow": str(require("tensorflow").__version__)}
    return tensorflow | {name: version(name) for name in TOOLS}
