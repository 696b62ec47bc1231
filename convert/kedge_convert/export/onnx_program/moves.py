"""Operators that move numbers: reshape, transpose, pad, join, part, pick, repeat."""

from typing import Any

import numpy as np

from kedge_convert.export.onnx_program.activations import with_fused
from kedge_convert.export.onnx_program.calls import Made, OperatorCall, Rule
from kedge_convert.export.onnx_program.graph import PART, Array
from kedge_convert.export.onnx_program.layout import (
    FIRST,
    IMAGE,
    INTO,
    LAST,
    Layout,
    is_free,
    ordered,
)

# schema.fbs: MirrorPadMode; ONNX's `reflect` leaves the edge out, and SYMMETRIC repeats it.
REFLECT = 0


def flat(call: OperatorCall, size: int) -> str:
    """Return the name of the first operand as rows of `size` numbers, in TFLite's order."""
    shape, value = call.shape(), _in_order(call)
    if len(shape) == 2 and shape[1] == size:
        return value
    if shape[0] * size == int(np.prod(shape)):
        return call.node("Flatten", value)
    return call.node("Reshape", value, call.graph.numbers([-1, size], use="shape"))


def _in_order(call: OperatorCall) -> str:
    """Return the first operand in a layout whose numbers are in TFLite's order."""
    return call.value(0, FIRST if is_free(call.shape()) and call.is_in(FIRST) else LAST)


def _reshape(call: OperatorCall) -> Made:
    shape = call.shapes[0]
    if shape == call.shape():
        layout = call.layout()
        return Made(call.value(0, layout), layout)
    if len(shape) == 2 and not call.is_constant(0):
        return Made(flat(call, shape[1]))
    # Where it is all the same the result is ready for a convolution.
    layout = FIRST if is_free(shape) and not call.is_constant(0) else LAST
    sizes = call.graph.numbers(ordered(shape, layout), use="shape")
    return Made(call.node("Reshape", _in_order(call), sizes), layout)


def _transpose(call: OperatorCall) -> Made:
    order = call.constant(1).tolist()
    source = FIRST if call.is_in(FIRST) and not call.is_in(LAST) else LAST
    if source is FIRST:
        order = [INTO[LAST][axis] for axis in order]
    value = call.value(0, source)
    for layout in (LAST, FIRST) if len(order) == IMAGE else (LAST,):
        if ordered(order, layout) == sorted(order):
            return Made(value, layout)
    return Made(call.node("Transpose", value, perm=order))


def _pad(call: OperatorCall) -> Made:
    value = call.constant(2).item() if call.kind == "PADV2" else 0.0
    return _padded(call, call.constant(1), call.number(value), mode="constant")


def _mirror_pad(call: OperatorCall) -> Made:
    if call.options.mode != REFLECT and call.constant(1).max() > 1:
        raise call.refusal("that repeats the edge, by more than one")
    return _padded(
        call, call.constant(1), mode="reflect" if call.options.mode == REFLECT else "edge"
    )


def _padded(call: OperatorCall, widths: Array, *value: str, mode: str) -> Made:
    layout = call.layout()
    pads = np.array(ordered(widths.tolist(), layout)).T.reshape(-1)
    made = call.node("Pad", call.value(0, layout), call.integers(pads), *value, mode=mode)
    return Made(made, layout)


def _concatenation(call: OperatorCall) -> Made:
    layout = call.layout()
    (axis,) = call.axes(call.options.axis, layout)
    values = [_whole(call, i, layout) for i in range(call.count)]
    return with_fused(call, Made(call.node("Concat", *values, axis=axis), layout))


def _whole(call: OperatorCall, index: int, layout: Layout) -> str:
    """Return an operand; a constant of one number keeps its axes, as it does not broadcast."""
    return call.tensors.value(call.operation.inputs[index], layout)


def _pack(call: OperatorCall) -> Made:
    rank = len(call.shapes[0])
    axes = call.axes(call.options.axis, LAST, rank)
    values = [call.node("Unsqueeze", call.value(i), call.integers(axes)) for i in range(call.count)]
    return Made(call.node("Concat", *values, axis=axes[0]))


def _unpack(call: OperatorCall) -> list[Made]:
    (axis,) = call.axes(call.options.axis, LAST)
    value = call.value()
    return [
        Made(call.node("Gather", value, call.integers(i), axis=axis))
        for i in range(len(call.shapes))
    ]


def _split(call: OperatorCall) -> list[Made]:
    """Write the parts; the axis is the first operand of SPLIT, the last of SPLIT_V."""
    data, at = (1, 0) if call.kind == "SPLIT" else (0, 2)
    rank = len(call.shape(data))
    number = int(call.constant(at).item()) % rank
    layout = FIRST if rank == IMAGE and call.is_in(FIRST, data) else LAST
    (axis,) = call.axes(number, layout, rank)
    sizes = call.integers([shape[number] for shape in call.shapes])
    inputs = (call.value(data, layout), sizes)
    parts = call.nodes("Split", len(call.shapes), inputs, axis=axis)
    return [Made(part, layout) for part in parts]


Span = tuple[int, int, int]  # start, end, step


def _slice(call: OperatorCall) -> Made:
    starts, sizes = call.constant(1).tolist(), call.shapes[0]
    spans = [(start, start + size, 1) for start, size in zip(starts, sizes, strict=True)]
    return _sliced(call, spans)


def _strided_slice(call: OperatorCall) -> Made:
    """Write a slice. Masks: bit i of axis i leaves its start or end out, or drops the axis."""
    options, shape = call.options, call.shape()
    if options.ellipsisMask or options.newAxisMask or getattr(options, "offset", False):
        raise call.refusal("with an ellipsis or a new axis")
    bounds = zip(*(call.constant(i).tolist() for i in (1, 2, 3)), strict=True)
    spans = [_span(options, axis, shape[axis], *each) for axis, each in enumerate(bounds)]
    spans += [(0, size, 1) for size in shape[len(spans) :]]
    made = _sliced(call, spans)
    if not options.shrinkAxisMask:
        return made
    value = made.name
    if made.layout is FIRST:
        value = call.node("Transpose", value, perm=list(INTO[LAST]))
    return Made(call.node("Reshape", value, call.graph.numbers(call.shapes[0], use="shape")))


def _span(options: Any, axis: int, size: int, start: int, end: int, step: int) -> Span:
    if options.shrinkAxisMask >> axis & 1:
        return start % size, start % size + 1, 1
    low = None if options.beginMask >> axis & 1 else start
    high = None if options.endMask >> axis & 1 else end
    return slice(low, high, step).indices(size)


def _sliced(call: OperatorCall, spans: list[Span]) -> Made:
    """Write a slice of the axes that aren't taken whole: an open batch stays open."""
    layout = FIRST if len(spans) == IMAGE and call.is_in(FIRST) else LAST
    sizes = call.shape()
    cut = [axis for axis, span in enumerate(spans) if span != (0, sizes[axis], 1)]
    value = call.value(0, layout)
    if not cut:
        return Made(value, layout)
    starts, ends, steps = zip(*(spans[axis] for axis in cut), strict=True)
    # Counted back from the end, -1 would be the last.
    ends = tuple(-sizes[axis] - 1 if end < 0 else end for axis, end in zip(cut, ends, strict=True))
    names = map(call.integers, (starts, ends, call.axes(cut, layout), steps))
    return Made(call.node("Slice", value, *names), layout)


def _gather(call: OperatorCall) -> Made:
    if getattr(call.options, "batchDims", 0):
        raise call.refusal("by batch")
    layout = call.layout() if len(call.shape(1)) == 1 and not call.is_constant(0) else LAST
    (axis,) = call.axes(call.options.axis, layout)
    return Made(call.node("Gather", call.value(0, layout), call.value(1), axis=axis), layout)


def _reverse(call: OperatorCall) -> Made:
    sizes = call.shape()
    turned = {int(axis) % len(sizes) for axis in call.constant(1)}
    return _sliced(
        call, [(n - 1, -1, -1) if axis in turned else (0, n, 1) for axis, n in enumerate(sizes)]
    )


def _tile(call: OperatorCall) -> Made:
    layout = call.layout()
    counts = call.integers(ordered(call.constant(1).tolist(), layout))
    return Made(call.node("Tile", call.value(0, layout), counts), layout)


def _broadcast(call: OperatorCall) -> Made:
    return Made(call.node("Expand", call.value(), call.integers(call.shapes[0])))


def _updated(call: OperatorCall) -> Made:
    """Compute an array with a part of it replaced: Swin's masks are made so, of constants."""
    values, part, starts = call.constant(0).copy(), call.constant(1), call.constant(2)
    # TFLite moves a part that would go over the edge.
    limits = np.subtract(values.shape, part.shape)
    starts = np.clip(starts, 0, limits).tolist()
    values[tuple(slice(at, at + n) for at, n in zip(starts, part.shape, strict=True))] = part
    name = call.graph.free(f"{call.tensors.name(call.operation.outputs[0])}{PART}updated")
    return Made(call.graph.constant(name, values))


def _shape(call: OperatorCall) -> Made:
    return Made(call.integers(call.shape()))


def _blocks(kind: str, **attributes: str) -> Rule:
    def rule(call: OperatorCall) -> Made:
        size = int(call.options.blockSize)
        return Made(call.node(kind, call.value(0, FIRST), blocksize=size, **attributes), FIRST)

    return rule


RULES: dict[str, Rule] = {
    "BROADCAST_TO": _broadcast,
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _blocks("DepthToSpace", mode="DCR"),
    "DYNAMIC_UPDATE_SLICE": _updated,
    "EXPAND_DIMS": _reshape,
    "GATHER": _gather,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "REVERSE_V2": _reverse,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPACE_TO_DEPTH": _blocks("SpaceToDepth"),
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
