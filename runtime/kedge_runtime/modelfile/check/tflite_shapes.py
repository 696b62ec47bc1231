"""Compute the output shapes of TFLite operators from their inputs and options.

Each rule takes a TfliteStep and returns each output's shape, None for one that depends on the run.
It raises UnsoundError for what may crash LiteRT's kernels (tensorflow/lite/kernels, Prepare).
"""

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from kedge_runtime.modelfile.encodings import Table
from kedge_runtime.modelfile.tflite_schema import ITEM_BYTES

Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]

MAX_STEP = 1 << 12  # of strides, dilations and kernel sides; far above any network for images


class UnsoundError(ValueError):
    """A part of a model that may crash an engine; the message names it."""


class Cost(NamedTuple):
    """The cost of a run: `work` in multiplications; `unknown`: operators without a check."""

    work: int
    unknown: tuple[str, ...] = ()


class TfliteTensor:
    """A tensor as the file states it; `data`: a constant's bytes, None for an activation.

    `scales`: their number; `axis`: the quantised dimension; `values`: known integers. With an
    `open_batch` the engine computes the first side, whatever the file states.
    """

    __slots__ = ("axis", "data", "dtype", "open_batch", "scales", "shape", "values", "variable")

    def __init__(
        self, shape: Shape, dtype: str, data: memoryview | None, variable: bool = False
    ) -> None:
        """Keep what the file states; the rest is set later."""
        self.shape, self.dtype, self.data, self.variable = shape, dtype, data, variable
        self.scales, self.axis, self.open_batch = 0, 0, False
        self.values: Shape | None = None

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its bytes in memory."""
        return self.elements * ITEM_BYTES.get(self.dtype, 16)

    def integers(self) -> tuple[int, ...] | None:
        """Return the integers of a constant or a folded value, or None."""
        if self.values is None and self.data is not None and self.dtype in ("int32", "int64"):
            kind = "i" if self.dtype == "int32" else "q"
            self.values = struct.unpack_from(f"<{self.elements}{kind}", self.data)
        return self.values


class TfliteStep:
    """An operator with its tensors; an absent input is None."""

    def __init__(
        self,
        kind: str,
        inputs: list[TfliteTensor | None],
        outputs: list[TfliteTensor],
        options: Table | None,
    ) -> None:
        """Keep what the file states."""
        self.kind, self.inputs, self.outputs, self.options = kind, inputs, outputs, options

    def number(self, field: int, kind: str = "i", default: int = 0) -> int:
        """Return an option, `default` where it is absent."""
        return default if self.options is None else self.options.number(field, kind, default)

    def shape(self, place: int = 0) -> Shape:
        """Return the shape of an input that must be present."""
        tensor = self.inputs[place]
        if tensor is None:
            raise UnsoundError(f"operand {place} is missing")
        return tensor.shape

    def given(self, place: int) -> TfliteTensor | None:
        """Return an input, None where it is absent."""
        return self.inputs[place] if place < len(self.inputs) else None

    def integers(self, place: int) -> tuple[int, ...]:
        """Return the numbers of an operand. Raises UnsoundError for what isn't constant."""
        tensor = self.given(place)
        found = None if tensor is None else tensor.integers()
        if found is None:
            raise UnsoundError(f"operand {place} is computed, so its sizes have no bound")
        return found


def same(step: TfliteStep) -> Shapes:
    """Keep the shape of the first input for each output."""
    return [step.shape()] * len(step.outputs)


def broadcast(step: TfliteStep) -> Shapes:
    """Broadcast all inputs to each other."""
    result: Shape = ()
    for place in range(len(step.inputs)):
        result = _stretched(result, step.shape(place))
    return [result]


def _stretched(one: Shape, other: Shape) -> Shape:
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    if one == other or not short:
        return long
    padded = (1,) * (len(long) - len(short)) + short
    for a, b in zip(long, padded, strict=True):
        if a != b and 1 not in (a, b):
            raise UnsoundError(
                f"the shapes {in_words(one)} and {in_words(other)} don't go together"
            )
    return tuple(b if a == 1 else a for a, b in zip(long, padded, strict=True))


def prelu(step: TfliteStep) -> Shapes:
    """Keep the input's shape; the slopes must fit."""
    (shape,) = broadcast(step)
    if shape != step.shape():
        raise UnsoundError(f"gives {in_words(shape)} instead of {in_words(step.shape())}")
    return [shape]


def select(step: TfliteStep) -> Shapes:
    """Keep the shape of two equal alternatives; the condition has it too, or one per row."""
    condition, one, other = (step.shape(place) for place in range(3))
    if one != other or condition not in (one, (), (1,), one[:1]):
        raise UnsoundError(
            f"the shapes {in_words(condition)}, {in_words(one)}, {in_words(other)} differ"
        )
    return [one]


def in_words(shape: Shape | None) -> str:
    """Return a shape for a message."""
    return "?" if shape is None else "x".join(map(str, shape)) or "a scalar"


def bounded(step: TfliteStep, field: int, what: str, default: int = 0, kind: str = "i") -> int:
    """Return an option that must be 1 to MAX_STEP."""
    value = step.number(field, kind, default)
    if not 1 <= value <= MAX_STEP:
        raise UnsoundError(f"its {what} is {value}")
    return value


def axis_of(value: int, rank: int) -> int:
    """Return an axis counted from the front. Raises UnsoundError for a missing one."""
    if not -rank <= value < rank:
        raise UnsoundError(f"its axis is {value} of {rank} dimensions")
    return value % rank


def _axes(values: tuple[int, ...], rank: int) -> set[int]:
    if len(values) > 8:
        raise UnsoundError(f"it has {len(values)} axes")
    return {axis_of(value, rank) for value in values}


def _slid(size: int, window: int, stride: int, dilation: int, padding: int) -> int:
    """Return the number of a window's positions; padding 0 is same, 1 is valid."""
    if padding not in (0, 1):
        raise UnsoundError(f"its padding is {padding}")
    reach = (window - 1) * dilation + 1
    places = -(-size // stride) if padding == 0 else (size - reach + stride) // stride
    if places < 1:
        raise UnsoundError(f"its window of {reach} is larger than the input of {size}")
    return places


def _bias(step: TfliteStep, place: int, channels: int) -> None:
    bias = step.given(place)
    if bias is not None and bias.elements != channels:
        raise UnsoundError(f"its bias has {bias.elements} numbers for {channels} channels")


def conv_2d(step: TfliteStep) -> Shapes:
    """Convolve [n, h, w, c] with weights [channels, kh, kw, c / groups]."""
    n, h, w, c = step.shape()
    channels, kh, kw, depth = step.shape(1)
    sides = _windows(step, (h, w), (kh, kw), dilations=4)
    if c % depth or channels % (c // depth):
        raise UnsoundError(f"its weights of depth {depth} don't fit {c} channels")
    _bias(step, 2, channels)
    return [(n, *sides, channels)]


def depthwise(step: TfliteStep) -> Shapes:
    """Convolve [n, h, w, c] with weights [1, kh, kw, c * multiplier]."""
    n, h, w, c = step.shape()
    one, kh, kw, channels = step.shape(1)
    sides = _windows(step, (h, w), (kh, kw), dilations=5)
    multiplier = step.number(3)
    if one != 1 or channels % c or (multiplier and multiplier * c != channels):
        raise UnsoundError(f"its weights of {channels} channels don't fit {c} channels")
    _bias(step, 2, channels)
    return [(n, *sides, channels)]


def _windows(step: TfliteStep, sizes: Shape, windows: Shape, dilations: int) -> Shape:
    strides = (bounded(step, 2, "stride"), bounded(step, 1, "stride"))
    wide = (bounded(step, dilations + 1, "dilation", 1), bounded(step, dilations, "dilation", 1))
    padding = step.number(0, "b")
    return tuple(_slid(*one, padding) for one in zip(sizes, windows, strides, wide, strict=True))


def pool(step: TfliteStep) -> Shapes:
    """Pool [n, h, w, c] by windows."""
    n, h, w, c = step.shape()
    window = (bounded(step, 4, "window"), bounded(step, 3, "window"))
    strides = (bounded(step, 2, "stride"), bounded(step, 1, "stride"))
    windows = zip((h, w), window, strides, strict=True)
    return [(n, *(_slid(*one, 1, step.number(0, "b")) for one in windows), c)]


def conv_3d(step: TfliteStep) -> Shapes:
    """Convolve [n, d, h, w, c] with weights [kd, kh, kw, c, channels]."""
    n, *sizes, c = step.shape()
    *windows, depth, channels = step.shape(1)
    if depth != c:
        raise UnsoundError(f"its weights of depth {depth} don't fit {c} channels")
    strides = [bounded(step, field, "stride") for field in (1, 3, 2)]
    wide = [bounded(step, field, "dilation", 1) for field in (5, 7, 6)]
    padding = step.number(0, "b")
    _bias(step, 2, channels)
    sides = [_slid(*one, padding) for one in zip(sizes, windows, strides, wide, strict=True)]
    return [(n, *sides, channels)]


def transpose_conv(step: TfliteStep) -> Shapes:
    """Convolve transposed to the shape of the first input; weights [channels, kh, kw, c]."""
    stated = step.integers(0)
    channels, kh, kw, depth = step.shape(1)
    n, h, w, c = step.shape(2)
    strides = (bounded(step, 2, "stride"), bounded(step, 1, "stride"))
    if len(stated) != 4 or (stated[0], stated[3], depth) != (n, channels, c):
        raise UnsoundError(f"its weights don't fit a shape of {in_words(stated)}")
    padding = step.number(0, "b")
    there = [_slid(*one, 1, padding) for one in zip(stated[1:3], (kh, kw), strides, strict=True)]
    if there != [h, w]:
        raise UnsoundError(f"a shape of {in_words(stated)} doesn't come from {h}x{w}")
    _bias(step, 3, channels)
    return [stated]


def fully_connected(step: TfliteStep) -> Shapes:
    """Multiply [..., c] by weights [units, c]."""
    taken = step.shape()
    units, depth = step.shape(1)
    if step.number(1, "b") != 0:
        raise UnsoundError("its weights are shuffled")
    _bias(step, 2, units)
    if step.number(2, "?"):
        if taken[-1:] != (depth,):
            raise UnsoundError(f"its weights of depth {depth} don't fit {in_words(taken)}")
        return [(*taken[:-1], units)]
    rows, left = divmod(math.prod(taken), depth)
    if left:
        raise UnsoundError(f"its weights of depth {depth} don't fit {in_words(taken)}")
    return [(rows, units)]


def batch_matmul(step: TfliteStep) -> Shapes:
    """Multiply [..., m, k] by [..., k, n]; options 0 and 1 transpose them."""
    one, other = step.shape(), step.shape(1)
    m, k = one[-2:][::-1] if step.number(0, "?") else one[-2:]
    depth, n = other[-2:][::-1] if step.number(1, "?") else other[-2:]
    if k != depth:
        raise UnsoundError(f"the shapes {in_words(one)} and {in_words(other)} don't multiply")
    return [(*_stretched(one[:-2], other[:-2]), m, n)]


def reduce(step: TfliteStep) -> Shapes:
    """Remove the axes that the second input names, or set them to 1."""
    shape = step.shape()
    axes = _axes(step.integers(1), len(shape))
    if step.number(0, "?"):
        return [tuple(1 if i in axes else side for i, side in enumerate(shape))]
    return [tuple(side for i, side in enumerate(shape) if i not in axes)]


def arg(step: TfliteStep) -> Shapes:
    """Remove one axis."""
    shape, found = step.shape(), step.integers(1)
    if len(found) != 1:
        raise UnsoundError(f"it has {len(found)} axes")
    axis = axis_of(found[0], len(shape))
    return [shape[:axis] + shape[axis + 1 :]]


def along(step: TfliteStep) -> Shapes:
    """Keep the shape; the second input names its axes."""
    _axes(step.integers(1), len(step.shape()))
    return [step.shape()]


def reshape(step: TfliteStep) -> Shapes:
    """Reshape to the second input, or the options; -1 is the rest."""
    count, shape = math.prod(step.shape()), step.given(1)
    stated = () if step.options is None else step.options.numbers(0, "i")
    wanted = stated if shape is None else shape.integers()
    if wanted is None:
        return [None]
    if wanted.count(-1) > 1 or any(side < -1 or side == 0 for side in wanted):
        raise UnsoundError(f"its new shape is {in_words(wanted)}")
    fixed = math.prod(side for side in wanted if side != -1)
    if count % fixed or (fixed != count and -1 not in wanted):
        raise UnsoundError(f"{in_words(step.shape())} can't become {in_words(wanted)}")
    return [tuple(count // fixed if side == -1 else side for side in wanted)]


def squeeze(step: TfliteStep) -> Shapes:
    """Remove sides of 1: those that the options name, or all."""
    shape = step.shape()
    named = () if step.options is None else step.options.numbers(0, "i")
    axes = _axes(named, len(shape)) if named else {i for i, side in enumerate(shape) if side == 1}
    if any(shape[i] != 1 for i in axes):
        raise UnsoundError(f"can't take axes of {in_words(shape)} away")
    return [tuple(side for i, side in enumerate(shape) if i not in axes)]


def expand_dims(step: TfliteStep) -> Shapes:
    """Add a side of 1."""
    shape, found = step.shape(), step.integers(1)
    if len(found) != 1:
        raise UnsoundError(f"it has {len(found)} axes")
    axis = axis_of(found[0], len(shape) + 1)
    return [(*shape[:axis], 1, *shape[axis:])]


def transpose(step: TfliteStep) -> Shapes:
    """Reorder the axes as the second input states."""
    shape, order = step.shape(), step.integers(1)
    if sorted(axis_of(i, len(shape)) for i in order) != list(range(len(shape))):
        raise UnsoundError(f"its order is {in_words(order)}")
    return [tuple(shape[i] for i in order)]
