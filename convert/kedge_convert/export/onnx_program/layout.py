"""The two orders of the axes of an image: TFLite's and that of ONNX's windows."""

from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

T = TypeVar("T")

IMAGE = 4  # axes that an image has, the batch among them


class Layout(Enum):
    """Where the channels are; what isn't an image is always in TFLite's order, LAST."""

    LAST = "channels_last"
    FIRST = "channels_first"

    @property
    def other(self) -> "Layout":
        """The opposite."""
        return Layout.FIRST if self is Layout.LAST else Layout.LAST


LAST, FIRST = Layout.LAST, Layout.FIRST
# The permutation that brings an image of the other layout into this one.
INTO = {FIRST: (0, 3, 1, 2), LAST: (0, 2, 3, 1)}


def ordered(items: Sequence[T], layout: Layout) -> list[T]:
    """Return what stands for each axis of TFLite's order in the order of `layout`."""
    return [items[axis] for axis in INTO[FIRST]] if layout is FIRST else list(items)


def axis_in(layout: Layout, axis: int) -> int:
    """Return where an axis of TFLite's order, from 0 on, is in `layout`."""
    return INTO[FIRST].index(axis) if layout is FIRST else axis


def is_free(shape: Sequence[int]) -> bool:
    """Whether both layouts of a shape in TFLite's order have the same numbers in the same order."""
    return len(shape) == IMAGE and (shape[1] * shape[2] == 1 or shape[3] == 1)
