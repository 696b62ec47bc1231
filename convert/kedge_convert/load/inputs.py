"""Give models of grey images a channel axis, and draw noise in the range of a model's input."""

import math
from typing import Any

import numpy as np

from kedge_convert.load.input_stage import behind, normalises, parsed
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.errors import UsageError

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
_SIDE = 128


def noise(model: Any, images: int) -> Floats:
    """Return float32 [n, h, w, c]: bytes where the model normalises them itself, else -1..1.

    n: `images`, or the model's fixed batch.
    """
    count, *shape = model.inputs[0].shape
    size, rng = (count or images, *(side or _SIDE for side in shape)), np.random.default_rng(0)
    of_bytes = len(shape) == 3 and normalises(model)
    numbers = rng.integers(0, 256, size) if of_bytes else rng.uniform(-1, 1, size)
    return numbers.astype(np.float32)
