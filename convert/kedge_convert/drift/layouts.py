"""Arrange a file's tensors as the float model has them."""

import math
from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Floats

COPIES = (2, 4)  # of a channel
Shape = tuple[int, ...]


@dataclass(frozen=True)
class FileChanges:
    """Say what a file's tensors may differ in from the float model's.

    `scaled`: its weights were prepared, which multiplies channels. `copied`: channels are written
    several times, all of them one after the other.
    """

    scaled: bool = False
    copied: bool = False


def arranged(values: Floats, shape: Shape, *, planar: bool) -> Floats:
    """Return [n, ...] values in Keras's shape, channels moved to the end if they come first.

    Of copied channels it is the copies' mean.
    """
    full = values.reshape(len(values), *_plain(values.shape))
    moved = np.moveaxis(full, 1, -1) if planar else full
    copies = math.prod(moved.shape[1:]) // math.prod(shape[1:])
    if copies > 1:
        moved = moved.reshape(*moved.shape[:-1], copies, -1).mean(axis=-2)
    return moved.reshape(len(values), *shape[1:])


def _plain(shape: Shape) -> Shape:
    """Return a shape without the images and without sides of 1."""
    return tuple(side for side in shape[1:] if side != 1)


def layouts(found: Shape, expected: Shape, changes: FileChanges) -> list[bool]:
    """Return the layouts that fit: channels last (False), channels first (True)."""
    a, b = _plain(found), _plain(expected)
    fits = {b}
    if changes.copied and b:
        fits |= {(*b[:-1], count * b[-1]) for count in COPIES}
    first = len(a) > 1 and (*a[1:], a[0]) in fits
    return [False] * (a in fits) + [True] * first
