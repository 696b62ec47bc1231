"""Check a model's bytes before any engine sees them: engines believe them, and die of lies.

It says as well what a run costs, by which a run in another process is bounded.
"""

from importlib import import_module

from kedge_runtime.content import ModelContent
from kedge_runtime.errors import ArtefactError
from kedge_runtime.inspect import FAULTS
from kedge_runtime.inspect.external import refuse_external
from kedge_runtime.inspect.tflite_shapes import Cost, UnsoundError

# Twins with one verb, `check(content) -> Cost`; each is imported only for its format.
CHECKS = {form: f"kedge_runtime.inspect.sound_{form}" for form in ("tflite", "onnx")}


def check_model(content: ModelContent) -> Cost:
    """Return what a run of a model takes.

    Raises ArtefactError, one line, for a model that an engine may not survive: operands that aren't
    there, shapes that contradict each other, memory or work beyond any network of images.
    """
    refuse_external(content)
    try:
        cost: Cost = import_module(CHECKS[content.format]).check(content.data)
    except UnsoundError as error:
        reason = f"refused, an invalid .{content.format} model ({error})"
    except FAULTS as error:
        reason = f"no readable .{content.format} model ({error})"
    else:
        return cost
    raise ArtefactError(f"{content.path}: {reason}; copy it again, or convert again")
