"""The beginning of a model: the size it takes, and whether it normalises its pixels itself."""

import re
from typing import Any

import numpy as np

from kedge_convert import inputs
from kedge_convert.sources import resizing
from kedge_convert.sources.beginning import Beginning, beginning
from kedge_runtime.errors import UsageError

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
    return inputs.behind(model, (batch, *size, model.inputs[0].shape[3]))


def normalises(model: Any) -> str | None:
    """Return the names of the operations by which a model normalises bytes itself, or None."""
    found = beginning(model)
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
    layer = resizing.leading(model, name)
    return None if layer is None else (int(layer.height), int(layer.width))


def _takes_bytes(found: Beginning) -> bool:
    spread = np.abs(found.white - found.black)
    narrowed = (spread > SPREAD[0]).all() and (spread < SPREAD[1]).all()
    shifted = (np.abs(found.black) > SHIFT).all() and (spread < 256).all()
    return bool(found.black.size and (narrowed or shifted))
