"""ONNX files whose weights lie in other files: no digest covers those."""

from kedge_runtime.content import ModelContent
from kedge_runtime.engines.onnx_graph import GRAPH, INITIALISER
from kedge_runtime.errors import ArtefactError
from kedge_runtime.protobuf import fields, parts

DATA_LOCATION, EXTERNAL = 14, 1  # TensorProto


def refuse_external(model: ModelContent) -> None:
    """Raise ArtefactError for a model that isn't whole in its file, or is no ONNX at all."""
    name = str(model.path)
    if model.format == "onnx" and _external(model.data, name):
        raise ArtefactError(
            f"{name}: keeps its weights in another file, which no digest covers: join them with "
            f"python -c \"import onnx; onnx.save(onnx.load('{name}'), 'whole.onnx')\""
        )


def _external(content: bytes, name: str) -> bool:
    try:
        return any(
            number == DATA_LOCATION and value == EXTERNAL
            for graph in parts(content, GRAPH)
            for tensor in parts(content, INITIALISER, graph)
            for number, value in fields(content, tensor)
        )
    except (ValueError, IndexError, KeyError) as error:
        raise ArtefactError(f"{name}: no readable .onnx model ({error}); copy it again") from None
