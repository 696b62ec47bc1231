"""Load float .onnx files: kedge's own artefacts, and those of other programs, as torch writes them.

They become Keras models, as all sources do: so each has every target, in both formats.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from kedge_convert.load.finite_weights import refuse_weights
from kedge_convert.load.input_stage import parsed
from kedge_convert.load.program_file import of_contract, refuse_integers
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_convert.onnx_import.importing import imported_onnx
from kedge_convert.onnx_import.reading import read_onnx
from kedge_convert.program import proof
from kedge_convert.program.calls import OperatorImportError
from kedge_convert.toolkit import require
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.file import artefact_of, ends_in_digest
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.modelfile.check.check import check_model
from kedge_runtime.modelfile.network import Network, read_network
from kedge_runtime.output import quiet

CHANNELS = (1, 3)
OTHERWISE = "give the model that it was made from, or a file of plainer operators"


@dataclass(frozen=True)
class OnnxInput:
    """An image input; `planar`: whether it is [n, c, h, w]. `shape`: of one image, [h, w, c].

    0 is an open side.
    """

    shape: tuple[int, ...]
    planar: bool


def holds(path: Path) -> bool:
    """Whether a path is named as an ONNX file: the format has no identifier."""
    return path.suffix.lower() == ".onnx" and path.is_file()


def check(request: SourceRequest) -> None:
    """Raise UsageError for a quantised file, ArtefactError for one that may crash an engine."""
    content, image = _read(request)
    if all(image.shape):
        _refuse_unknown(content)


def load(request: SourceRequest) -> LoadedModel:
    """Load a float ONNX file. Raises UsageError where its import isn't the same function."""
    content, image = _read(request)
    content, image = _sized(content, image, request.size)
    _refuse_unknown(content)
    try:
        with quiet():
            model = imported_onnx(read_onnx(content), "program", image.shape, planar=image.planar)
    except OperatorImportError as error:
        raise UsageError(f"kedge can't import its operator {error}: {OTHERWISE}") from error
    refuse_weights(model)
    if len(model.outputs) == 1 and not proof.is_same_on_noise(
        content, model, image.shape, image.planar
    ):
        raise UsageError(f"its import answers otherwise than onnxruntime does: {OTHERWISE}")
    path = Path(request.model)
    if ends_in_digest(content.data):
        return of_contract(path, model, artefact_of(content).contract)
    return LoadedModel(path.stem, model)


def _read(request: SourceRequest) -> tuple[ModelContent, OnnxInput]:
    content = read_content(Path(request.model), "onnx")
    network = read_network(content)
    refuse_integers(network)
    return content, _image(network)


def _refuse_unknown(content: ModelContent) -> None:
    """Check a file before anything computes with it. Raises UsageError, ArtefactError."""
    if unknown := check_model(content).unknown:
        raise UsageError(f"kedge can't import its operator {unknown[0]}: {OTHERWISE}")


def _image(network: Network) -> OnnxInput:
    """Return the only input. Raises UsageError for another one than an image of float32."""
    if len(network.inputs) != 1:
        raise UsageError(f"no image classifier: it has {counted(len(network.inputs), 'input')}")
    value = network.values[network.inputs[0]]
    if value.dtype != "float32":
        raise UsageError(f"its input is {value.dtype}; kedge converts files that take float32")
    sides = tuple(max(side, 0) for side in (value.shape or ())[1:])
    if len(sides) != 3 or (value.shape or (0,))[0] > 1:
        raise UsageError(f"its input is {value.shape}: kedge takes one image, of three axes")
    planar = sides[0] in CHANNELS and sides[2] not in CHANNELS
    return OnnxInput((*sides[1:], sides[0]) if planar else sides, planar)


def _sized(
    content: ModelContent, image: OnnxInput, size: str | None
) -> tuple[ModelContent, OnnxInput]:
    """Return a file of open height and width at the size that is asked for."""
    requested = parsed(size)
    if all(image.shape):
        return content, image
    if requested is None:
        raise UsageError(f"its input size {image.shape} is open: give --size, such as --size 224")
    shape = (*requested, image.shape[2])
    sides = (shape[2], *shape[:2]) if image.planar else shape
    model = require("onnx").load_from_string(content.data)
    weights = {each.name for each in model.graph.initializer}
    (value,) = (each for each in model.graph.input if each.name not in weights)
    for dim, side in zip(value.type.tensor_type.shape.dim, (1, *sides), strict=True):
        dim.dim_value = side
    del model.graph.value_info[:]  # they may tell of the open sides
    return replace(content, data=model.SerializeToString()), replace(image, shape=shape)
