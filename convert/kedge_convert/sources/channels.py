"""Models of grey images without a channel axis, (n, h, w) or (n, h * w), made to take one."""

import math
from typing import Any

from kedge_convert.inputs import behind
from kedge_convert.sources.shapes import parsed
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError

# The shortest side that a grey image has; shorter series are sensor readings.
_LEAST = 8


def as_image(model: Any, size: str | None, name: str) -> Any:
    """Return a model of [n, h, w, 1] for one of [n, h, w] or [n, h * w]; others as they are.

    A square is taken for an image; for other shapes `size` must say so. Raises UsageError.
    """
    inputs: Any = getattr(model, "inputs", None) or ()
    if len(inputs) != 1 or len(inputs[0].shape) not in (2, 3):
        return model
    batch, *shape = list(inputs[0].shape)
    height, width = parsed(size) or _square(shape) or _refuse(inputs[0].shape, name)
    if shape not in ([height, width], [height * width]):
        raise UsageError(f"--size {size}: {name} takes {tuple(inputs[0].shape)}, another number")
    return behind(model, (batch, height, width, 1), require("keras").layers.Reshape(shape))


def _square(shape: list[int | None]) -> tuple[int, int] | None:
    if None in shape:
        return None
    side = math.isqrt(math.prod(each or 0 for each in shape))
    return (side, side) if side >= _LEAST and shape in ([side, side], [side * side]) else None


def _refuse(shape: Any, name: str) -> tuple[int, int]:
    what = "a row of numbers" if len(shape) == 2 else "a series, as audio and motion models take"
    raise UsageError(
        f"{name}: no image classifier: its input is {tuple(shape)}, {what}; where these are grey "
        "images, say their size with --size, such as --size 28x28"
    )
