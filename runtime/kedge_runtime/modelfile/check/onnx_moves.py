"""Compute the output shapes of ONNX operators that cut, join, pad and pick."""

import math

from kedge_runtime.modelfile.check.onnx_shapes import OnnxStep, Shapes, axes_of, stretched
from kedge_runtime.modelfile.check.tflite_shapes import MAX_STEP, UnsoundError, axis_of


def reshape(step: OnnxStep) -> Shapes:
    """Reshape to a list: 0 keeps a side, -1 is the rest."""
    shape, wanted = step.shape(), step.lists("shape", 1)
    count = math.prod(shape)
    if wanted is None or len(wanted) > 8 or wanted.count(-1) > 1 or any(s < -1 for s in wanted):
        raise UnsoundError(f"its new shape is {wanted}")
    zero = step.attribute("allowzero")
    if any(s == 0 and (zero or i >= len(shape)) for i, s in enumerate(wanted)):
        raise UnsoundError(f"its new shape is {wanted}")
    sides = [shape[i] if s == 0 else s for i, s in enumerate(wanted)]
    fixed = math.prod(side for side in sides if side != -1)
    if count % fixed or (fixed != count and -1 not in sides):
        raise UnsoundError(f"{shape} can't become {wanted}")
    return [tuple(count // fixed if side == -1 else side for side in sides)]


def flatten(step: OnnxStep) -> Shapes:
    """Flatten into two dimensions."""
    shape = step.shape()
    axis = step.attribute("axis", 1)
    axis = len(shape) if axis == len(shape) else axis_of(axis, len(shape))
    return [(math.prod(shape[:axis]), math.prod(shape[axis:]))]


def squeeze(step: OnnxStep) -> Shapes:
    """Remove sides of 1."""
    shape, named = step.shape(), step.lists("axes", 1)
    axes = axes_of(named, len(shape)) if named else {i for i, s in enumerate(shape) if s == 1}
    if any(shape[i] != 1 for i in axes):
        raise UnsoundError(f"can't take axes of {shape} away")
    return [tuple(side for i, side in enumerate(shape) if i not in axes)]


def unsqueeze(step: OnnxStep) -> Shapes:
    """Add sides of 1."""
    shape, named = step.shape(), step.lists("axes", 1)
    if not named or len(named) + len(shape) > 8:
        raise UnsoundError(f"its axes are {named}")
    axes = axes_of(named, len(shape) + len(named))
    rest = iter(shape)
    return [tuple(1 if i in axes else next(rest) for i in range(len(shape) + len(named)))]


def transpose(step: OnnxStep) -> Shapes:
    """Reorder the axes."""
    shape = step.shape()
    order = step.node.integers.get("perm", tuple(range(len(shape)))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise UnsoundError(f"its order is {order}")
    return [tuple(shape[i] for i in order)]


def concat(step: OnnxStep) -> Shapes:
    """Join along an axis."""
    first = step.shape()
    axis, total = axis_of(step.attribute("axis", 1), len(first)), 0
    for place in range(len(step.inputs)):
        shape = step.shape(place)
        if len(shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(shape, first, strict=True)) if i != axis
        ):
            raise UnsoundError(f"the shapes {first} and {shape} don't join")
        total += shape[axis]
    return [(*first[:axis], total, *first[axis + 1 :])]


def split(step: OnnxStep) -> Shapes:
    """Split along an axis."""
    shape, count = step.shape(), len(step.node.outputs)
    if not count:
        raise UnsoundError("it gives nothing")
    axis = axis_of(step.attribute("axis"), len(shape))
    if step.attribute("num_outputs", count) != count:
        raise UnsoundError(f"it splits into {step.attribute('num_outputs')} as {count}")
    each = -(-shape[axis] // count)
    sizes = step.lists("split", 1)
    if sizes is None:
        sizes = (*(each,) * (count - 1), shape[axis] - each * (count - 1))
    if len(sizes) != count or min(sizes) < 1 or sum(sizes) != shape[axis]:
        raise UnsoundError(f"it splits {shape[axis]} into {sizes}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def slice_(step: OnnxStep) -> Shapes:
    """Cut some axes by Python's slices."""
    shape = list(step.shape())
    begins, ends = step.lists("starts", 1) or (), step.lists("ends", 2) or ()
    axes, strides = step.lists("axes", 3), step.lists("steps", 4)
    axes = tuple(range(len(begins))) if axes is None else axes
    strides = (1,) * len(begins) if strides is None else strides
    if not len(begins) == len(ends) == len(axes) == len(strides) <= len(shape) or 0 in strides:
        raise UnsoundError(f"it slices {shape} by {begins}, {ends}, {axes}, {strides}")
    axes_of(axes, len(shape))
    for begin, end, axis, stride in zip(begins, ends, axes, strides, strict=True):
        side = shape[axis]
        found = len(range(side)[begin : None if stride < 0 and end < -side else end : stride])
        if not found:
            raise UnsoundError(f"it takes {begin}:{end}:{stride} of {side}")
        shape[axis] = found
    return [tuple(shape)]


def pad(step: OnnxStep) -> Shapes:
    """Pad each side before and behind; mirrors need enough to mirror."""
    shape, pads = step.shape(), step.lists("pads", 1) or ()
    rank, mode = len(shape), step.node.texts.get("mode", "constant")
    axes = step.lists("axes", 3) if len(step.inputs) > 3 else None
    if axes is not None or len(pads) != 2 * rank or mode not in MODES:
        raise UnsoundError(f"it pads {shape} by {pads}")
    most = {"constant": MAX_STEP, "edge": MAX_STEP}
    for i, side in enumerate(shape):
        least = -(side - 1) if mode == "constant" else 0
        allowed = most.get(mode, side - 1)
        if not all(least <= p <= allowed for p in (pads[i], pads[i + rank])):
            raise UnsoundError(f"it pads {shape} by {pads}")
    found = tuple(side + pads[i] + pads[i + rank] for i, side in enumerate(shape))
    if min(found, default=1) < 1:
        raise UnsoundError(f"it pads {shape} by {pads}")
    return [found]


MODES = ("constant", "reflect", "edge")


def tile(step: OnnxStep) -> Shapes:
    """Repeat each side."""
    shape, times = step.shape(), step.list(1)
    if len(times) != len(shape) or min(times, default=1) < 1:
        raise UnsoundError(f"it repeats {shape} by {times}")
    return [tuple(side * count for side, count in zip(shape, times, strict=True))]


def expand(step: OnnxStep) -> Shapes:
    """Broadcast to a list."""
    wanted = step.list(1)
    if min(wanted, default=1) < 1 or len(wanted) > 8:
        raise UnsoundError(f"it stretches to {wanted}")
    return [stretched(step.shape(), wanted)]


def gather(step: OnnxStep) -> Shapes:
    """Pick items of an axis."""
    shape, places = step.shape(), step.value(1)
    axis = axis_of(step.attribute("axis"), len(shape))
    side = shape[axis]
    if places.integers is None:
        raise UnsoundError("it picks items by computed places")
    if places.integers.size and not -side <= places.integers.min() <= places.integers.max() < side:
        raise UnsoundError(f"it picks items of {side} that aren't there")
    return [(*shape[:axis], *places.shape, *shape[axis + 1 :])]


def resize(step: OnnxStep) -> Shapes:
    """Resize by factors, or to a shape."""
    shape = step.shape()
    sizes = step.given(3) if step.node.kind == "Resize" else None
    if sizes is not None:
        found = step.list(3)
    else:
        place = 1 if step.node.kind == "Upsample" or len(step.inputs) == 2 else 2
        scales = step.value(place).floats
        if scales is None or len(scales) != len(shape) or not all(0 < s < 64 for s in scales):
            raise UnsoundError("its factors aren't known, or out of range")
        found = tuple(int(side * factor) for side, factor in zip(shape, scales, strict=True))
    if len(found) != len(shape) or min(found) < 1 or found[:2] != shape[:2] or len(shape) != 4:
        raise UnsoundError(f"it resizes {shape} to {found}")
    return [found]


def depth_to_space(step: OnnxStep) -> Shapes:
    """Move channels into blocks."""
    n, c, h, w = step.shape()
    block = _block(step)
    if c % (block * block):
        raise UnsoundError(f"its block of {block} doesn't fit {c} channels")
    return [(n, c // (block * block), h * block, w * block)]


def space_to_depth(step: OnnxStep) -> Shapes:
    """Move blocks into channels."""
    n, c, h, w = step.shape()
    block = _block(step)
    if h % block or w % block:
        raise UnsoundError(f"its block of {block} doesn't fit {h}x{w}")
    return [(n, c * block * block, h // block, w // block)]


def _block(step: OnnxStep) -> int:
    block = step.attribute("blocksize")
    if not 1 <= block <= MAX_STEP:
        raise UnsoundError(f"its block is {block}")
    return block


def shape_of(step: OnnxStep) -> Shapes:
    """Return a list with one number per dimension."""
    end = step.node.integers.get("end", (None,))[0]
    return [(len(step.shape()[step.attribute("start") : end]),)]


def constant(step: OnnxStep) -> Shapes:
    """Return the shape of the attribute."""
    node = step.node
    if "value" in node.tensors:
        return [node.tensors["value"].shape]
    if "value_ints" in node.integers:
        return [(len(node.integers["value_ints"]),)]
    if node.texts:
        raise UnsoundError("its value is text")
    return [()]


def constant_of_shape(step: OnnxStep) -> Shapes:
    """Return the shape that the list states."""
    wanted = step.list(0)
    if min(wanted, default=1) < 1 or len(wanted) > 8:
        raise UnsoundError(f"it makes {wanted}")
    return [wanted]


def recurrent(step: OnnxStep) -> Shapes:
    """Apply LSTM (four gates), GRU (three) or RNN (one) to [t, n, c]."""
    t, n, c = step.shape()
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[step.node.kind]
    ways, hidden = step.shape(1)[0], step.attribute("hidden_size")
    direction = step.node.texts.get("direction", "forward")
    if ways != {"forward": 1, "reverse": 1, "bidirectional": 2}.get(direction):
        raise UnsoundError(f"its direction is {direction!r}"[:60])
    if step.attribute("layout") or hidden < 1:
        raise UnsoundError(f"its layout or its hidden size of {hidden} is unknown")
    state = (ways, n, hidden)
    wanted = [
        *((ways, gates * hidden, c), (ways, gates * hidden, hidden), (ways, 2 * gates * hidden)),
        *((n,), state, state, (ways, 3 * hidden)),
    ]
    for place, (size, value) in enumerate(zip(wanted, step.inputs[1:], strict=False), 1):
        if value is not None and value.shape != size:
            raise UnsoundError(f"operand {place} is {value.shape} instead of {size}")
        if place == 4 and value is not None:
            raise UnsoundError("it has lengths of sequences")
    return [(t, ways, n, hidden), state, state][: len(step.node.outputs)]


def top_k(step: OnnxStep) -> Shapes:
    """Return the k largest along an axis, and their positions."""
    shape, found = step.shape(), step.list(1)
    axis = axis_of(step.attribute("axis", -1), len(shape))
    if len(found) != 1 or not 1 <= found[0] <= shape[axis]:
        raise UnsoundError(f"it takes {found} of {shape[axis]}")
    return [(*shape[:axis], found[0], *shape[axis + 1 :])] * 2


def reverse_sequence(step: OnnxStep) -> Shapes:
    """Reverse sequences of the given lengths; the shape stays."""
    shape, lengths = step.shape(), step.value(1)
    batch, time = step.attribute("batch_axis", 1), step.attribute("time_axis", 0)
    if len(shape) < 2 or {batch, time} != {0, 1} or lengths.shape != (shape[batch],):
        raise UnsoundError(f"it turns {shape} by {lengths.shape}")
    return [shape]
