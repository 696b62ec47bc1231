"""Find the input stage of a model: its size, its resizing, and its own normalisation."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Resize
from kedge_runtime.errors import UsageError
from kedge_runtime.image.pipelines import Pipeline
from kedge_runtime.output import quiet


def behind(
    model: Any, shape: tuple[int | None, ...], change: Callable[[Any], Any] = lambda image: image
) -> Any:
    """Return the model behind an input of `shape`, the batch included, which `change` turns into
    what the model takes. Raises whatever Keras does where the model can't take that.
    """
    keras = require("keras")
    image = keras.Input(batch_shape=shape, name="input")
    return keras.Model(image, model(change(image)), name=model.name)


# fmt: off
# What changes the numbers of a pixel, by itself or by constants: Keras's names, TensorFlow's.
_ARITHMETIC = frozenset({
    "Add", "Divide", "Multiply", "Negative", "Normalization", "Rescaling", "Subtract", "TrueDivide",
    "AddV2", "BiasAdd", "Mul", "Neg", "RealDiv", "Sub",
})
# What moves pixels or channels, or does nothing.
_MOVING = frozenset({
    "Cast", "CenterCrop", "Concatenate", "ExpandDims", "Flip", "GetItem", "Identity", "Repeat",
    "Resize", "Resizing", "Reversed", "Split", "Squeeze", "Stack", "Take", "Tile", "Transpose",
    "Unstack",
    "ConcatV2", "GatherV2", "Pack", "ResizeBilinear", "ResizeNearestNeighbor", "ReverseV2",
    "SplitV", "StridedSlice", "Unpack",
})
# The same, of layers alone: operations and nodes that reshape may hold a batch of one.
_MOVING_LAYERS = frozenset({"Cropping2D", "Flatten", "Permute", "Reshape", "UpSampling2D"})
# fmt: on
# Beginnings of the names of layers that hand a picture on unless the model is being trained.
_TRAINING = ("AugMix", "CutMix", "Dropout", "Gaussian", "MixUp", "Rand", "SpatialDropout")
# The side of the pictures where any is taken: no side that a layer would crop or resize to.
_SIDE = 251


@dataclass(frozen=True)
class InputStep:
    """One operation of a beginning, of Keras or a node of TensorFlow's; `kind`: its class.

    `resizes`: whether its picture has another size than before.
    """

    operation: Any
    kind: str
    resizes: bool = False

    @property
    def name(self) -> str:
        """The operation's name in the model; of a node's path, the last two parts."""
        return "/".join(str(self.operation.name).split("/")[-2:])

    @property
    def is_arithmetic(self) -> bool:
        """Whether it changes a pixel's numbers."""
        return self.kind in _ARITHMETIC


@dataclass(frozen=True)
class InputStage:
    """`steps` in order; `black` and `white`: what becomes of bytes 0 and 255, float32 [h, w, c]."""

    steps: tuple[InputStep, ...]
    black: Floats
    white: Floats


class _Ended(Exception):  # noqa: N818 - it ends a walk, and is no error
    """The graph has come to a layer that is no part of the beginning; `value` is what it takes."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def input_stage(model: Any) -> InputStage:
    """Follow a Functional or Sequential model from its input [n, h, w, 3] on, into nested ones."""
    steps: list[InputStep] = []
    try:
        ends = _walk(model, _pictures(model), steps)
    except _Ended as ended:
        ends = ended.value
    black, white = np.asarray(_first_pictures(ends), np.float32)
    return InputStage(tuple(steps), black, white)


def _pictures(model: Any) -> Floats:
    """Return a black and a white picture of the model's size, [2, h, w, 3]."""
    shape = [side or _SIDE for side in model.inputs[0].shape[1:]]
    return np.stack([np.full(shape, value, np.float32) for value in (0, 255)])


def _walk(model: Any, pictures: Any, steps: list[InputStep]) -> Any:
    """Return what a model makes of `pictures`, adding to `steps`. Raises _Ended."""

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        inner = getattr(operation, "_functional", operation)
        if hasattr(inner, "_run_through_graph"):
            return _walk(inner, args[0], steps)
        taken = _first_pictures((args, kwargs))
        if hasattr(operation, "begin"):
            raise _Ended(_through_nodes(operation, taken, steps))
        given = _run(operation, taken, args, kwargs)
        size = tuple(_first_pictures(given).shape[1:3])
        resizes = size != tuple(taken.shape[1:3])
        steps.append(InputStep(operation, type(operation).__name__, resizes))
        return given

    inner = getattr(model, "_functional", model)
    return inner._run_through_graph(pictures, lambda each: each, call)


def _through_nodes(layer: Any, pictures: Any, steps: list[InputStep]) -> Any:
    """Return what a SavedModel's graph (`graph_layer.py`) makes of `pictures` before its weights."""
    with quiet():
        nodes, given = layer.begin(pictures, _ARITHMETIC | _MOVING)
    steps.extend(InputStep(node, node.op) for node in nodes)
    return given


def _run(operation: Any, taken: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operation of a beginning gives, out of training. Raises _Ended for another."""
    kind = type(operation).__name__
    if kind.startswith(_TRAINING):
        return taken
    is_layer = isinstance(operation, require("keras").Layer)
    if kind not in _ARITHMETIC | _MOVING and not (is_layer and kind in _MOVING_LAYERS):
        raise _Ended(taken)
    return operation(*args, **kwargs)


def _first_pictures(values: Any) -> Any:
    """Return the first of nested values that is of both pictures, no constant; else nothing."""
    for leaf in require("keras").tree.flatten(values):
        if len(getattr(leaf, "shape", ())) > 1 and leaf.shape[0] == 2:
            return leaf
    return np.zeros((2, 0), np.float32)


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
    steps = input_stage(model).steps
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


# How far 0..255 may be apart behind a beginning for bytes: x/255 gives 1, x/127.5 - 1 gives 2,
# and a division by the deviation of photos, about 58, gives 4.4. One for 0..1 goes far beyond.
SPREAD = (0.5, 10.0)
# A beginning that shifts by more than this, and scales nothing up, takes off a mean of bytes.
SHIFT = 10.0


def fixed(model: Any, size: str | None, name: str) -> Any:
    """Return the model with a fixed height and width: its own, its Resizing layer's, or `size`.

    `size` is `224` or `160x192` (height x width). Raises UsageError when it is needed and missing,
    or given in vain.
    """
    batch, *shape = model.inputs[0].shape
    asked = parsed(size)
    if None not in shape[:2]:
        if asked not in (None, tuple(shape[:2])):
            height, width = shape[:2]
            raise UsageError(f"--size {size}: {name} takes {height}x{width}; leave it out")
        return model if batch in (None, 1) else _of_one(model, batch, name)
    asked = asked or _resized(model, name)
    if asked is None:
        raise UsageError(
            f"{name}: its input size {(batch, *shape)} is open: give --size, such as --size 224"
        )
    try:
        return _fed(model, None if batch is None else 1, asked)
    except Exception as error:
        height, width = asked
        raise UsageError(f"--size {height}x{width}: {name} can't be built for it") from error


def _of_one(model: Any, batch: int, name: str) -> Any:
    """Return the model of a larger batch for one picture at a time, as devices have them."""
    try:
        return _fed(model, 1, model.inputs[0].shape[1:3])
    except Exception as error:
        raise UsageError(
            f"{name}: takes {batch} pictures at once, and its operations hold that number: build "
            "it with keras.Input(shape), which leaves the batch open"
        ) from error


def _fed(model: Any, batch: int | None, size: tuple[int, int]) -> Any:
    """Return the model for a batch of pictures of a size."""
    return behind(model, (batch, *size, model.inputs[0].shape[3]))


def normalises(model: Any) -> str | None:
    """Return the names of the operations by which a model normalises bytes itself, or None."""
    found = input_stage(model)
    names = [step.name for step in found.steps if step.is_arithmetic]
    return ", ".join(names) if names and _takes_bytes(found) else None


def parsed(size: str | None) -> tuple[int, int] | None:
    """Return the height and width of `224` or `160x192`, or None. Raises UsageError."""
    if size is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if not found:
        raise UsageError(f"--size: got {size!r}, allowed are 224 or 160x192 (height x width)")
    height, width = found.groups()
    return int(height), int(width or height)


def _resized(model: Any, name: str) -> tuple[int, int] | None:
    """Return the size that a leading Resizing layer brings every picture to."""
    layer = leading(model, name)
    return None if layer is None else (int(layer.height), int(layer.width))


def _takes_bytes(found: InputStage) -> bool:
    spread = np.abs(found.white - found.black)
    narrowed = (spread > SPREAD[0]).all() and (spread < SPREAD[1]).all()
    shifted = (np.abs(found.black) > SHIFT).all() and (spread < 256).all()
    return bool(found.black.size and (narrowed or shifted))
