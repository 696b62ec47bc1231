"""Find the input stage of a model: its size, its resizing, and its own normalisation.

Models of grey images get a channel axis. Noise is drawn in the range of a model's input.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.kinds import Resize
from kedge_runtime.errors import UsageError
from kedge_runtime.image.pipelines import Pipeline
from kedge_runtime.output import quiet


def behind(
    model: Any, shape: tuple[int | None, ...], change: Callable[[Any], Any] = lambda image: image
) -> Any:
    """Return the model behind a new input of `shape`, batch included.

    `change` makes the model's input from the new one. Raises whatever Keras does where the model
    can't take that.
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
# Prefixes of layers that return their input unless the model is being trained.
_TRAINING = ("AugMix", "CutMix", "Dropout", "Gaussian", "MixUp", "Rand", "SpatialDropout")
# The side of the images where any is allowed: no side that a layer would crop or resize to.
_SIDE = 251


@dataclass(frozen=True)
class InputStep:
    """One operation of an input stage, of Keras or a node of TensorFlow's; `kind`: its class.

    `resizes`: whether it changes the size of the image.
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
    """`steps` in order; `black` and `white`: its output for bytes 0 and 255, float32 [h, w, c]."""

    steps: tuple[InputStep, ...]
    black: Floats
    white: Floats


class _Ended(Exception):  # noqa: N818 - it ends a walk, and is no error
    """The walk has met a layer behind the input stage; `value` is that layer's input."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def input_stage(model: Any) -> InputStage:
    """Follow a Functional or Sequential model from its input [n, h, w, 3] on, into nested ones."""
    steps: list[InputStep] = []
    try:
        result = _walk(model, _black_and_white(model), steps)
    except _Ended as ended:
        result = ended.value
    black, white = np.asarray(_first_images(result), np.float32)
    return InputStage(tuple(steps), black, white)


def _black_and_white(model: Any) -> Floats:
    """Return a black and a white image of the model's size, [2, h, w, 3]."""
    shape = [side or _SIDE for side in model.inputs[0].shape[1:]]
    return np.stack([np.full(shape, value, np.float32) for value in (0, 255)])


def _walk(model: Any, images: Any, steps: list[InputStep]) -> Any:
    """Run a model on `images`, adding to `steps`; return its output. Raises _Ended."""

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        inner = getattr(operation, "_functional", operation)
        if hasattr(inner, "_run_through_graph"):
            return _walk(inner, args[0], steps)
        before = _first_images((args, kwargs))
        if hasattr(operation, "run_input_stage"):
            raise _Ended(_through_nodes(operation, before, steps))
        result = _run(operation, before, args, kwargs)
        size = tuple(_first_images(result).shape[1:3])
        resizes = size != tuple(before.shape[1:3])
        steps.append(InputStep(operation, type(operation).__name__, resizes))
        return result

    inner = getattr(model, "_functional", model)
    return inner._run_through_graph(images, lambda each: each, call)


def _through_nodes(layer: Any, images: Any, steps: list[InputStep]) -> Any:
    """Run the part of a graph (`graph_layer.py`) that lies before its weights."""
    with quiet():
        nodes, result = layer.run_input_stage(images, _ARITHMETIC | _MOVING)
    steps.extend(InputStep(node, node.op) for node in nodes)
    return result


def _run(operation: Any, images: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation of an input stage, out of training. Raises _Ended for any other."""
    kind = type(operation).__name__
    if kind.startswith(_TRAINING):
        return images
    is_layer = isinstance(operation, require("keras").Layer)
    if kind not in _ARITHMETIC | _MOVING and not (is_layer and kind in _MOVING_LAYERS):
        raise _Ended(images)
    return operation(*args, **kwargs)


def _first_images(values: Any) -> Any:
    """Return the first of nested values that holds both images, no constant; else nothing."""
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


def leading(model: Any) -> Any:
    """Return the layer that resizes every image of a model of open size, or None.

    Raises UsageError when something before it changes an image's size.
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
            f"takes images of any size, and {first.kind} ({first.name}) cuts them before its "
            f"Resizing: {_REMEDY}"
        )
    return layer.operation


def is_known(layer: Any) -> bool:
    """Whether the device resizes exactly as a Resizing layer does."""
    known = (layer.interpolation, bool(layer.antialias)) in _METHODS
    return known and not layer.pad_to_aspect_ratio


def pipeline(layer: Any) -> Pipeline:
    """Return the device's equivalent of a Resizing layer. Raises UsageError for none."""
    if layer.pad_to_aspect_ratio:
        raise UsageError(
            f"its Resizing ({layer.name}) pads images with {layer.fill_value:g}, which the device "
            f"doesn't: {_REMEDY}"
        )
    method = _METHODS.get((layer.interpolation, bool(layer.antialias)), "pyramid")
    return Pipeline(
        f"the layer {layer.name}",
        resize=method,
        fit="keras_crop" if layer.crop_to_aspect_ratio else "stretch",
        # What a decoder leaves out, sampling would have seen.
        scaled_decode=method == "pyramid",
    )


# Distance of 0 and 255 behind an input stage for bytes: x/255 gives 1, x/127.5 - 1 gives 2,
# and a division by the deviation of photos, about 58, gives 4.4. One for 0..1 goes far beyond.
SPREAD = (0.5, 10.0)
# An input stage that shifts by more than this, and scales nothing up, subtracts a mean of bytes.
SHIFT = 10.0


def fixed(model: Any, size: str | None) -> Any:
    """Return the model with a fixed height and width: its own, its Resizing layer's, or `size`.

    `size` is `224` or `160x192` (height x width). Raises UsageError when it is missing, or
    contradicts the model.
    """
    batch, *shape = model.inputs[0].shape
    requested = parsed(size)
    if None not in shape[:2]:
        if requested not in (None, tuple(shape[:2])):
            height, width = shape[:2]
            raise UsageError(f"--size {size}: the model takes {height}x{width}; leave it out")
        return model if batch in (None, 1) else _single(model, batch)
    requested = requested or _resized(model)
    if requested is None:
        raise UsageError(
            f"its input size {(batch, *shape)} is open: give --size, such as --size 224"
        )
    try:
        return _with_input(model, None if batch is None else 1, requested)
    except Exception as error:
        height, width = requested
        raise UsageError(f"--size {height}x{width}: the model can't be built for it") from error


def _single(model: Any, batch: int) -> Any:
    """Return the model of a larger batch for one image at a time, as devices run it."""
    try:
        return _with_input(model, 1, model.inputs[0].shape[1:3])
    except Exception as error:
        raise UsageError(
            f"takes {batch} images at once, and its operations hold that number: build it with "
            "keras.Input(shape), which leaves the batch open"
        ) from error


def _with_input(model: Any, batch: int | None, size: tuple[int, int]) -> Any:
    """Return the model for a batch of images of a size."""
    return behind(model, (batch, *size, model.inputs[0].shape[3]))


def normalises(model: Any) -> str | None:
    """Return the names of the operations by which a model normalises bytes itself, or None."""
    stage = input_stage(model)
    names = [step.name for step in stage.steps if step.is_arithmetic]
    return ", ".join(names) if names and _takes_bytes(stage) else None


def parsed(size: str | None) -> tuple[int, int] | None:
    """Return the height and width of `224` or `160x192`, or None. Raises UsageError."""
    if size is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if not match:
        raise UsageError(f"--size: got {size!r}, allowed are 224 or 160x192 (height x width)")
    height, width = match.groups()
    return int(height), int(width or height)


def _resized(model: Any) -> tuple[int, int] | None:
    """Return the size that a leading Resizing layer gives every image."""
    layer = leading(model)
    return None if layer is None else (int(layer.height), int(layer.width))


def _takes_bytes(stage: InputStage) -> bool:
    spread = np.abs(stage.white - stage.black)
    narrowed = (spread > SPREAD[0]).all() and (spread < SPREAD[1]).all()
    shifted = (np.abs(stage.black) > SHIFT).all() and (spread < 256).all()
    return bool(stage.black.size and (narrowed or shifted))


# The shortest side that a grey image has; shorter series are sensor readings.
_LEAST = 8


def as_image(model: Any, size: str | None) -> Any:
    """Return a model of [n, h, w, 1] for one of [n, h, w] or [n, h * w]; others are unchanged.

    A square counts as an image; other shapes need `size`. Raises UsageError.
    """
    inputs: Any = getattr(model, "inputs", None) or ()
    if len(inputs) != 1 or len(inputs[0].shape) not in (2, 3):
        return model
    batch, *shape = list(inputs[0].shape)
    height, width = parsed(size) or _square(shape) or _refuse(inputs[0].shape)
    if shape not in ([height, width], [height * width]):
        raise UsageError(f"--size {size}: the model takes {tuple(inputs[0].shape)}, another number")
    return behind(model, (batch, height, width, 1), require("keras").layers.Reshape(shape))


def _square(shape: list[int | None]) -> tuple[int, int] | None:
    if None in shape:
        return None
    side = math.isqrt(math.prod(each or 0 for each in shape))
    return (side, side) if side >= _LEAST and shape in ([side, side], [side * side]) else None


def _refuse(shape: Any) -> tuple[int, int]:
    what = "a row of numbers" if len(shape) == 2 else "a series, as audio and motion models take"
    raise UsageError(
        f"no image classifier: its input is {tuple(shape)}, {what}; where these are grey images, "
        "give their size with --size, such as --size 28x28"
    )


# Where a model takes any size: large enough for every application of Keras.
_ANY_SIDE = 128


def noise(model: Any, images: int) -> Floats:
    """Return float32 [n, h, w, c]: bytes where the model normalises them itself, else -1..1.

    n: `images`, or the model's fixed batch.
    """
    count, *shape = model.inputs[0].shape
    size, rng = (count or images, *(side or _ANY_SIDE for side in shape)), np.random.default_rng(0)
    of_bytes = len(shape) == 3 and normalises(model)
    numbers = rng.integers(0, 256, size) if of_bytes else rng.uniform(-1, 1, size)
    return numbers.astype(np.float32)
