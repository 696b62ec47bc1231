"""The Resizing layer at the beginning of a model of any size: it settles size and geometry."""

from typing import Any

from kedge_convert.sources.beginning import beginning
from kedge_runtime.contract import Resize
from kedge_runtime.errors import UsageError
from kedge_runtime.pipelines import Pipeline

# Keras's interpolation and antialias -> the device's. TensorFlow's antialiasing filters are
# Pillow's, which rounds and clips to bytes: a mean of .3 of 255 away, tests/test_shapes.py.
_METHODS: dict[tuple[str, bool], Resize] = {
    ("nearest", False): "nearest",
    ("bilinear", False): "tf_bilinear",
    ("bilinear", True): "pillow_bilinear",
    ("bicubic", True): "pillow_bicubic",
    ("lanczos3", True): "pillow_lanczos",
}
_REMEDY = "give --size, the size that its images had in training, and --preprocess"


def leading(model: Any, name: str) -> Any:
    """Return the layer that resizes every picture of a model whose size is open, or None.

    Raises UsageError when something else changes a picture's size before it.
    """
    if None not in model.inputs[0].shape[1:3]:
        return None
    steps = beginning(model).steps
    layer = next((step for step in steps if step.kind == "Resizing"), None)
    if layer is None:
        return None
    first = next(step for step in steps if step.resizes or step is layer)
    if first is not layer:
        raise UsageError(
            f"{name}: takes pictures of any size, and {first.kind} ({first.name}) cuts them before "
            f"its Resizing: {_REMEDY}"
        )
    return layer.operation


def is_known(layer: Any) -> bool:
    """Whether the device resizes as a Resizing layer does, and not only nearly so."""
    known = (layer.interpolation, bool(layer.antialias)) in _METHODS
    return known and not layer.pad_to_aspect_ratio


def pipeline(layer: Any, name: str) -> Pipeline:
    """Return how the device does what a Resizing layer would. Raises UsageError where it can't."""
    if layer.pad_to_aspect_ratio:
        raise UsageError(
            f"{name}: its Resizing ({layer.name}) pads images with {layer.fill_value:g}, which "
            f"the device doesn't: {_REMEDY}"
        )
    method = _METHODS.get((layer.interpolation, bool(layer.antialias)), "pyramid")
    return Pipeline(
        f"the layer {layer.name}",
        resize=method,
        fit="keras_crop" if layer.crop_to_aspect_ratio else "stretch",
        # What a decoder leaves out, sampling would have seen.
        scaled_decode=method == "pyramid",
    )
