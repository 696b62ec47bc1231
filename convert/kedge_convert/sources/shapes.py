"""The beginning of a model: the size it takes, and whether it normalises its pixels itself."""

import re
from typing import Any

import numpy as np

from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError

# Layers that come before a model's own normalisation: they move pixels, or do nothing.
_BEFORE = ("InputLayer", "Resizing", "CenterCrop", "Identity", "Reversed")
_NORMALISING = ("Normalization", "Rescaling")
# How far 0..255 may be apart behind a layer that takes bytes: x/255 gives 1, x/127.5 - 1 gives 2,
# and a division by the deviation of photos, about 58, gives 4.4. A layer for 0..1 goes far beyond.
SPREAD = (0.5, 10.0)
# A layer that shifts by more than this takes a mean off that was counted in bytes.
SHIFT = 10.0


def fixed(model: Any, size: str | None, name: str) -> Any:
    """Return the model with a fixed height and width: its own, its Resizing layer's, or `size`.

    `size` is `224` or `160x192` (height x width). Raises UsageError when it is needed and missing,
    or given in vain.
    """
    shape = tuple(model.inputs[0].shape)
    asked = _parsed(size)
    if None not in shape[1:3]:
        if asked not in (None, shape[1:3]):
            height, width = shape[1:3]
            raise UsageError(f"--size {size}: {name} takes {height}x{width}; leave it out")
        return model
    asked = asked or _resized(model)
    if asked is None:
        raise UsageError(f"{name}: its input size {shape} is open: give --size, such as --size 224")
    keras = require("keras")
    picture = keras.Input(batch_shape=(shape[0], *asked, 3), name="picture")
    try:
        return keras.Model(picture, model(picture), name=model.name)
    except Exception as error:
        height, width = asked
        raise UsageError(f"--size {height}x{width}: {name} can't be built for it") from error


def normalises(model: Any) -> str | None:
    """Return the name of the layer by which a model normalises bytes itself, or None."""
    for layer in _leading(model):
        if type(layer).__name__ in _NORMALISING:
            return str(layer.name) if _takes_bytes(layer) else None
    return None


def _parsed(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if not found:
        raise UsageError(f"--size: got {size!r}, allowed are 224 or 160x192 (height x width)")
    height, width = found.groups()
    return int(height), int(width or height)


def _resized(model: Any) -> tuple[int, int] | None:
    """Return the size that a leading Resizing layer brings every picture to."""
    for layer in _leading(model):
        if type(layer).__name__ == "Resizing":
            return int(layer.height), int(layer.width)
    return None


def _leading(model: Any) -> list[Any]:
    """Return the layers from the input on, as far as each is followed by one alone."""
    layers: list[Any] = []
    for layer in model.layers:
        inner = _leading(layer) if hasattr(layer, "layers") else [layer]
        layers += inner
        if not _passes(inner[-1]):
            break
    return layers


def _passes(layer: Any) -> bool:
    kind = type(layer).__name__
    return kind in _BEFORE or kind.startswith("Random")


def _takes_bytes(layer: Any) -> bool:
    ends = np.array([0.0, 255.0], np.float32).reshape(2, 1, 1, 1).repeat(3, axis=3)
    low, high = np.asarray(layer(ends))
    spread = np.abs(high - low)
    narrowed = (spread > SPREAD[0]).all() and (spread < SPREAD[1]).all()
    return bool(narrowed or (np.abs(low) > SHIFT).all())
