"""Rules for what moves numbers without changing them, and for products of matrices."""

from typing import Any

import numpy as np

from kedge_convert.onnx_import.calls import IMAGES, HeldValue, OnnxCall, images, plain
from kedge_convert.onnx_import.elementwise import without
from kedge_convert.program.weighted import with_weights
from kedge_convert.toolkit import require


def same(call: OnnxCall) -> HeldValue:
    """Return the value itself."""
    return call.value()


def transpose(call: OnnxCall) -> HeldValue:
    """Return the value, its axes called otherwise."""
    value = call.value()
    moves = call.attribute("perm", tuple(reversed(range(len(value.order)))))
    if moves[0] != 0:
        raise call.refusal("of the batch")
    order = tuple(moves.index(axis) for axis in value.order)
    return HeldValue(value.symbol, order, value.positive)


def reshape(call: OnnxCall) -> HeldValue:
    """Return a Reshape. 0 stands for the input's size, and -1 for what is left."""
    value, stated = call.value(), call.stated("shape", 1)
    if stated is None:
        raise call.refusal("without a shape")
    sizes = [int(each) for each in stated]
    copied = not call.attribute("allowzero", 0)
    sizes = [value.shape[i] if each == 0 and copied else each for i, each in enumerate(sizes)]
    return _reshaped(call, sizes)


def flatten(call: OnnxCall) -> HeldValue:
    """Return a Reshape to the two axes of a list for each image."""
    if int(call.attribute("axis", 1)) % len(call.value().order) != 1:
        raise call.refusal("that mixes the images of a batch")
    return _reshaped(call, [1, -1])


def squeeze(call: OnnxCall) -> HeldValue:
    """Return a Reshape without some axes of length 1."""
    value, stated = call.value(), call.stated("axes", 1)
    rank = len(value.order)
    axes = [i for i, n in enumerate(value.shape) if n == 1] if stated is None else stated
    left = set(range(rank)) - set(call.axes(axes, rank))
    return _reshaped(call, [value.shape[axis] for axis in sorted(left)])


def unsqueeze(call: OnnxCall) -> HeldValue:
    """Return a Reshape with further axes of length 1."""
    value, stated = call.value(), call.stated("axes", 1)
    if stated is None:
        raise call.refusal("without axes")
    sizes, rank = iter(value.shape), len(value.order) + len(stated)
    axes = call.axes(stated, rank)
    return _reshaped(call, [1 if axis in axes else next(sizes) for axis in range(rank)])


def _reshaped(call: OnnxCall, sizes: list[int]) -> HeldValue:
    """Return the value in another shape, in which -1 stands for what is left."""
    value = call.value()
    total, known = int(np.prod(value.shape)), int(np.prod([s for s in sizes if s != -1]))
    whole = [total // max(known, 1) if size == -1 else size for size in sizes]
    if whole[:1] != [1] or int(np.prod(whole)) != total:
        raise call.refusal("that mixes the images of a batch")
    layer = require("keras").layers.Reshape(whole[1:], name=call.name)
    return HeldValue(layer(value.plain), tuple(range(len(whole))), value.positive)


def concat(call: OnnxCall) -> HeldValue:
    """Return a Concatenate."""
    held = [each for each in call.operands if isinstance(each, HeldValue)]
    if len(held) != len(call.operands):
        raise call.refusal("with a constant")
    first = held[0]
    (axis,) = call.axes(call.attribute("axis"), len(first.order))
    symbols = [each.ordered(first.order) for each in held]
    if len(symbols) == 1:
        return first
    layer = require("keras").layers.Concatenate(first.axis(axis), name=call.name)
    return first.with_symbol(layer(symbols), positive=all(each.positive for each in held))


def split(call: OnnxCall) -> list[HeldValue]:
    """Return the parts."""
    value, stated = call.value(), call.stated("split", 1)
    (axis,) = call.axes(call.attribute("axis", 0), len(value.order))
    count, size = len(call.operation.outputs), value.shape[axis]
    part = -(-size // count)
    ends = np.cumsum(stated)[:-1] if stated is not None else np.arange(1, count) * part
    parts = require("keras").ops.split(value.symbol, ends.tolist(), axis=value.axis(axis))
    return [value.with_symbol(each, positive=value.positive) for each in parts]


def slice_(call: OnnxCall) -> HeldValue:
    """Return a slice of axes other than the batch."""
    value = call.value()
    starts, ends = call.stated("starts", 1), call.stated("ends", 2)
    axes, steps = call.stated("axes", 3), call.stated("steps", 4)
    if starts is None or ends is None:
        raise call.refusal("without an end")
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), int) if steps is None else steps
    parts = [slice(None)] * len(value.order)
    for axis, *limits in zip(axes.tolist(), starts, ends, steps, strict=True):
        (one,) = call.axes(axis, len(parts))
        parts[value.axis(one)] = _slice(value.shape[one], *map(int, limits))
    return value.with_symbol(value.symbol[tuple(parts)], positive=value.positive)


def _slice(size: int, start: int, end: int, step: int) -> slice:
    """Return Python's slice; ONNX writes an end as a number beyond the last index."""
    low, high, step = slice(start, end, step).indices(size)
    return slice(low, None if high < 0 else high, step)


def gather(call: OnnxCall) -> HeldValue:
    """Return numbers at constant places of one axis; a single place drops the axis."""
    value, places = call.value(), call.constant(1)
    (axis,) = call.axes(call.attribute("axis", 0), len(value.order))
    if places.ndim > 1:
        raise call.refusal("at places of several axes")
    found = places % value.shape[axis]
    symbol = require("keras").ops.take(value.symbol, found, axis=value.axis(axis))
    kept = value.with_symbol(symbol, positive=value.positive)
    return kept if places.ndim else without(value, [axis], symbol)


def pad(call: OnnxCall) -> HeldValue:
    """Return a padding."""
    value, stated, rank = call.value(), call.stated("pads", 1), len(call.value().order)
    number, mode = call.stated("value", 2), call.attribute("mode", "constant")
    if stated is None or len(stated) != 2 * rank or stated.min() < 0 or mode == "wrap":
        raise call.refusal("that cuts, wraps, or has no pads")
    pairs = [(int(stated[axis]), int(stated[axis + rank])) for axis in value.order]
    if pairs[0] != (0, 0):
        raise call.refusal("of the batch")
    filler = 0.0 if number is None else float(number.item())
    keras = require("keras")
    if mode == "constant" and filler == 0 and value.order == IMAGES and pairs[3] == (0, 0):
        layer = keras.layers.ZeroPadding2D(pairs[1:3], name=call.name)
        return value.with_symbol(layer(value.symbol), positive=value.positive)
    how = {"mode": mode} if mode != "constant" else {"constant_values": filler}
    return value.with_symbol(keras.ops.pad(value.symbol, pairs, **how))


def resize(call: OnnxCall) -> HeldValue:
    """Return a resizing of images: pixels repeated, or bilinear from pixels' centres."""
    value, (height, width) = call.images(), _resized(call)
    method = call.attribute("mode", "nearest")
    whole = height % value.shape[1] == 0 and width % value.shape[2] == 0
    counted = call.attribute("coordinate_transformation_mode", "half_pixel")
    exact = whole if method == "nearest" else method == "linear" and "half_pixel" in counted
    if not exact or counted == "align_corners" or call.operation.kind == "Upsample" != whole:
        raise call.refusal("that doesn't count from pixels' centres")
    interpolation = "nearest" if method == "nearest" else "bilinear"
    resized = require("keras").ops.image.resize
    return images(resized(value, (height, width), interpolation=interpolation))


def _resized(call: OnnxCall) -> tuple[int, int]:
    """Return the new height and width; scales and sizes are the last operands."""
    shape = call.value().shape
    last = next((i for i in (3, 2, 1) if i < len(call.operands) and _there(call, i)), 0)
    numbers = call.stated("scales", last)
    if numbers is None or len(numbers) != len(shape):
        raise call.refusal("without a size")
    sizes = numbers if last == 3 else np.floor(np.asarray(shape) * numbers)
    if tuple(int(each) for each in sizes[:2]) != shape[:2]:
        raise call.refusal("of channels")
    return int(sizes[2]), int(sizes[3])


def _there(call: OnnxCall, index: int) -> bool:
    operand: Any = call.operands[index]
    return operand is not None and np.size(operand) > 0


def dense(call: OnnxCall) -> HeldValue:
    """Return a Dense layer of Gemm: alpha x w + beta c."""
    value, kernel = call.value(), np.asarray(call.constant(1), np.float32)
    if call.attribute("transA", 0):
        raise call.refusal("of the batch")
    kernel = kernel.T if call.attribute("transB", 0) else kernel
    kernel = kernel * np.float32(call.attribute("alpha", 1.0))
    return _dense(call, value.plain, kernel, float(call.attribute("beta", 1.0)))


def matmul(call: OnnxCall) -> HeldValue:
    """Return a Dense layer, or a product of two values."""
    one, other = (call.operands[i] for i in (0, 1))
    if isinstance(one, HeldValue) and isinstance(other, np.ndarray) and other.ndim == 2:
        return _dense(call, one.plain, np.asarray(other, np.float32), 1.0)
    if not (isinstance(one, HeldValue) and isinstance(other, HeldValue)):
        raise call.refusal("with a constant for each image of a batch")
    if len(one.order) != len(other.order) or len(call.operands) > 2:
        raise call.refusal("of two values that differ in rank")
    return plain(require("keras").ops.matmul(one.plain, other.plain))


def _dense(call: OnnxCall, value: Any, kernel: Any, factor: float) -> HeldValue:
    bias = call.bias(2, kernel.shape[1]) * np.float32(factor)
    layer = require("keras").layers.Dense(kernel.shape[1], name=call.name)
    return plain(with_weights(layer, value, kernel, bias))
