"""Check a model's bytes before any engine reads them: engines crash on invalid ones.

The check also returns the cost of a run, which sets the time limit of a worker process.
"""

from importlib import import_module

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.errors import ArtefactError, about
from kedge_runtime.modelfile import onnx_schema as schema
from kedge_runtime.modelfile.check.tflite_shapes import Cost, UnsoundError
from kedge_runtime.modelfile.encodings import fields, parts
from kedge_runtime.modelfile.network import FAULTS
from kedge_runtime.modelfile.unreadable import other_kind, unreadable

# Modules with `check(content) -> Cost`, each imported for its format only.
CHECKS = {format: f"{__package__}.{format}" for format in ("tflite", "onnx")}


def check_model(content: ModelContent) -> Cost:
    """Return the cost of a run of a model.

    Raises ArtefactError for a model that may crash an engine: missing operands, contradicting
    shapes, memory or work beyond any network for images, weights in another file.
    """
    with about(content.path):
        if content.format == "onnx" and _is_external(content.data):
            raise ArtefactError(
                "keeps its weights in another file, which no digest covers: join them with python "
                f"-c \"import onnx; onnx.save(onnx.load('{content.path}'), 'whole.onnx')\""
            )
        return _check(content)


def _is_external(content: bytes) -> bool:
    try:
        return any(
            number == schema.DATA_LOCATION and value == schema.EXTERNAL
            for graph in parts(content, schema.GRAPH)
            for tensor in parts(content, schema.INITIALISER, graph)
            for number, value in fields(content, tensor)
        )
    except (ValueError, IndexError, KeyError) as error:
        raise ArtefactError(unreadable("onnx", content, error)) from None


def _check(content: ModelContent) -> Cost:
    try:
        cost: Cost = import_module(CHECKS[content.format]).check(content.data)
    except UnsoundError as error:
        refused = f"refused, an invalid .{content.format} model ({error})"
        reason = other_kind(content.format, content.data) or (
            f"{refused}; copy it again, or convert again"
        )
    except FAULTS as error:
        reason = unreadable(content.format, content.data, error)
    else:
        return cost
    raise ArtefactError(reason)
