"""Convolutions, pools and dense layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kedge_convert.export.onnx_program.activations import with_fused
from kedge_convert.export.onnx_program.calls import Made, OperatorCall, Rule
from kedge_convert.export.onnx_program.layout import FIRST, IMAGE, LAST
from kedge_convert.export.onnx_program.moves import flat

SAME = 0  # schema.fbs: Padding; the other is VALID
NO_PADS = [0, 0, 0, 0]


def _other(**pairs: tuple[Any, Any]) -> dict[str, Any]:
    """Return the attributes that differ from ONNX's defaults, given as (value, default)."""
    return {name: value for name, (value, default) in pairs.items() if value != default}


def _strides(call: OperatorCall) -> list[int]:
    return [int(call.options.strideH), int(call.options.strideW)]


def _dilations(call: OperatorCall) -> list[int]:
    return [int(call.options.dilationHFactor), int(call.options.dilationWFactor)]


def _same(sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return SAME's pads [top, left, bottom, right]; TensorFlow puts the odd one after.

    `reach`: the sides that a window covers.
    """
    totals = [
        max((-(-size // stride) - 1) * stride + side - size, 0)
        for size, side, stride in zip(sizes, reach, strides, strict=True)
    ]
    before = [total // 2 for total in totals]
    return before + [total - first for total, first in zip(totals, before, strict=True)]


def _padded(call: OperatorCall, reach: Sequence[int]) -> tuple[str, list[int]]:
    """Return the value and pads of a convolution: its own, and those of a PAD in front of it."""
    own = NO_PADS
    if call.options.padding == SAME:
        own = _same(call.shape()[1:3], reach, _strides(call))
    padding = call.tensors.padding(call.operation.inputs[0])
    if padding is None:
        return call.value(0, FIRST), own
    index, widths = padding
    before, after = widths[1:3, 0].tolist(), widths[1:3, 1].tolist()
    pads = [one + other for one, other in zip(own, before + after, strict=True)]
    return call.tensors.value(index, FIRST), pads


def _bias(call: OperatorCall, index: int) -> list[str]:
    return [call.value(index)] if call.has(index) else []


def _convolution(call: OperatorCall) -> Made:
    kernel = call.constant(1)  # [outputs, h, w, inputs of a group]
    name = call.derived(1, "oihw", kernel.transpose(0, 3, 1, 2))
    return _convolved(call, name, kernel.shape[1:3], call.shape()[3] // kernel.shape[3])


def _depthwise(call: OperatorCall) -> Made:
    kernel = call.constant(1)  # [1, h, w, outputs]
    name = call.derived(1, "oihw", kernel.transpose(3, 0, 1, 2))
    return _convolved(call, name, kernel.shape[1:3], call.shape()[3])


def _convolved(call: OperatorCall, kernel: str, sides: Sequence[int], groups: int) -> Made:
    dilations = _dilations(call)
    reach = [(side - 1) * step + 1 for side, step in zip(sides, dilations, strict=True)]
    value, pads = _padded(call, reach)
    made = call.node(
        "Conv",
        value,
        kernel,
        *_bias(call, 2),
        kernel_shape=list(sides),
        strides=_strides(call),
        **_other(dilations=(dilations, [1, 1]), pads=(pads, NO_PADS), group=(groups, 1)),
    )
    return with_fused(call, Made(made, FIRST))


def _transposed(call: OperatorCall) -> Made:
    """Write a transposed convolution; operands: its output's shape, kernel, input, bias."""
    kernel = call.constant(1)  # [outputs, h, w, inputs]
    sides, strides = kernel.shape[1:3], _strides(call)
    inputs, outputs = call.shape(2)[1:3], call.shapes[0][1:3]
    # What the whole of it has beyond the output, or lacks; SAME cuts the odd one off after.
    beyond = [
        (size - 1) * stride + side - output
        for size, stride, side, output in zip(inputs, strides, sides, outputs, strict=True)
    ]
    cut = [max(each, 0) for each in beyond]
    before = [each // 2 if call.options.padding == SAME else 0 for each in cut]
    pads = before + [each - first for each, first in zip(cut, before, strict=True)]
    lacking = [max(-each, 0) for each in beyond]
    made = call.node(
        "ConvTranspose",
        call.value(2, FIRST),
        call.derived(1, "iohw", kernel.transpose(3, 0, 1, 2)),
        *_bias(call, 3),
        kernel_shape=list(sides),
        strides=strides,
        **_other(pads=(pads, NO_PADS), output_padding=(lacking, [0, 0])),
    )
    return with_fused(call, Made(made, FIRST))


def _dense(call: OperatorCall) -> Made:
    """Write a dense layer as one product with its bias, over images as a convolution of 1x1."""
    if call.options.weightsFormat:
        raise call.refusal("with shuffled weights")
    inputs = call.shape(1)[1]
    if not call.options.keepNumDims or len(call.shape()) == 2:
        # Its output has as many rows as are left, in two axes or more.
        return with_fused(call, _shaped(call, _product(call, flat(call, inputs))))
    if len(call.shape()) == IMAGE and call.is_in(FIRST):
        kernel = call.derived(1, "oi11", call.constant(1)[..., None, None])
        made = call.node("Conv", call.value(0, FIRST), kernel, *_bias(call, 2))
        return with_fused(call, Made(made, FIRST))
    kernel = call.derived(1, "io", call.constant(1).T)
    made = call.node("MatMul", call.value(), kernel)
    return with_fused(call, Made(call.node("Add", made, *_bias(call, 2)) if call.has(2) else made))


def _product(call: OperatorCall, rows: str) -> str:
    return call.node("Gemm", rows, call.value(1), *_bias(call, 2), transB=1)


def _shaped(call: OperatorCall, made: str) -> Made:
    shape = call.shapes[0]
    if len(shape) == 2:
        return Made(made)
    return Made(call.node("Reshape", made, call.graph.numbers(shape, use="shape")))


def _pool(kind: str) -> Rule:
    def rule(call: OperatorCall) -> Made:
        sides = [int(call.options.filterHeight), int(call.options.filterWidth)]
        strides, pads = _strides(call), NO_PADS
        if call.options.padding == SAME:
            pads = _same(call.shape()[1:3], sides, strides)
        value, others = call.value(0, FIRST), _other(pads=(pads, NO_PADS))
        made = call.node(kind, value, kernel_shape=sides, strides=strides, **others)
        return with_fused(call, Made(made, FIRST))

    return rule


def _local_response(call: OperatorCall) -> Made:
    """Write a normalisation by neighbouring channels; ONNX divides alpha by their number."""
    options, size = call.options, 2 * int(call.options.radius) + 1
    made = call.node(
        "LRN",
        call.value(0, FIRST),
        size=size,
        alpha=float(options.alpha) * size,
        beta=float(options.beta),
        bias=float(options.bias),
    )
    return Made(made, FIRST)


def _batch_product(call: OperatorCall) -> Made:
    values = [
        _turned(call, i) if turned else call.value(i)
        for i, turned in enumerate((call.options.adjX, call.options.adjY))
    ]
    return Made(call.node("MatMul", *values), LAST)


def _turned(call: OperatorCall, index: int) -> str:
    """Write an operand with its last two axes exchanged."""
    axes = np.arange(len(call.shape(index)))
    return call.node("Transpose", call.value(index), perm=[*axes[:-2], axes[-1], axes[-2]])


RULES: dict[str, Rule] = {
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "BATCH_MATMUL": _batch_product,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "LOCAL_RESPONSE_NORMALIZATION": _local_response,
    "MAX_POOL_2D": _pool("MaxPool"),
    "TRANSPOSE_CONV": _transposed,
}
