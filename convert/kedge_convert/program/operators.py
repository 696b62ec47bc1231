"""Rules for operators: which Keras layer or operation computes the same numbers.

An operator that is in no table can't be imported, and the source keeps its stock weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from kedge_convert.program import weighted
from kedge_convert.program.calls import OperatorImport, Rule, is_value
from kedge_convert.program.reading import Array
from kedge_convert.toolkit import require

# schema.fbs: ActivationFunctionType, MirrorPadMode
NO_ACTIVATION, RELU, RELU_N1_TO_1, RELU6, TANH = range(5)
MIRRORS = ("reflect", "symmetric")


def _ops() -> Any:
    return require("keras").ops


def _layers() -> Any:
    return require("keras").layers


def _activation(name: str) -> Callable[[OperatorImport], Any]:
    return lambda call: _layers().Activation(name, name=call.name)(call.value())


def _relu(maximum: float | None) -> Callable[[OperatorImport], Any]:
    return lambda call: _layers().ReLU(maximum, name=call.name)(call.value())


def _leaky_relu(call: OperatorImport) -> Any:
    layer = _layers().LeakyReLU(negative_slope=float(call.options.alpha), name=call.name)
    return layer(call.value())


def _gelu(call: OperatorImport) -> Any:
    if call.options.approximate:
        return _ops().gelu(call.value(), approximate=True)
    return _activation("gelu")(call)


def _softmax(call: OperatorImport) -> Any:
    if call.options.beta != 1:
        raise call.refusal(f"with a beta of {call.options.beta}")
    return _layers().Softmax(name=call.name)(call.value())


def _pool(name: str) -> Rule:
    def rule(call: OperatorImport) -> Any:
        options = call.options
        layer = getattr(_layers(), name)(
            (options.filterHeight, options.filterWidth),
            strides=(options.strideH, options.strideW),
            padding=weighted.PADDINGS[options.padding],
            name=call.name,
        )
        return layer(call.value())

    return rule


# The operation of keras.ops and the layer of two values, where there is one.
_BINARY = {
    "ADD": ("add", "Add"),
    "DIV": ("divide", ""),
    "MAXIMUM": ("maximum", "Maximum"),
    "MINIMUM": ("minimum", "Minimum"),
    "MUL": ("multiply", "Multiply"),
    "POW": ("power", ""),
    "SUB": ("subtract", "Subtract"),
}


def _binary(call: OperatorImport) -> Any:
    operation, layer = _BINARY[call.kind]
    one, other = _broadcastable(call)
    if layer and is_value(one) and is_value(other):
        return getattr(_layers(), layer)(name=call.name)([one, other])
    return getattr(_ops(), operation)(one, other)


def _squared_difference(call: OperatorImport) -> Any:
    one, other = _broadcastable(call)
    return _ops().square(_ops().subtract(one, other))


def _broadcastable(call: OperatorImport) -> tuple[Any, Any]:
    """Return two operands whose broadcasting is the same with any number of images."""
    one, other = call.operands
    if is_value(one) and is_value(other):
        if len(one.shape) != len(other.shape):
            raise call.refusal("of two values that differ in rank")
        return one, other
    index = 0 if is_value(one) else 1
    constant, rank = call.constant(1 - index), len(call.value(index).shape)
    if constant.ndim > rank or (constant.ndim == rank and constant.shape[0] != 1):
        raise call.refusal("with a constant for each image of a batch")
    return one, other


# Operators of one operand -> the operation of keras.ops.
_UNARY = {
    "ABS": "abs",
    "CEIL": "ceil",
    "COS": "cos",
    "EXP": "exp",
    "FLOOR": "floor",
    "LOG": "log",
    "LOG_SOFTMAX": "log_softmax",
    "NEG": "negative",
    "RSQRT": "rsqrt",
    "SIN": "sin",
    "SQRT": "sqrt",
    "SQUARE": "square",
}


def _unary(call: OperatorImport) -> Any:
    return getattr(_ops(), _UNARY[call.kind])(call.value())


_REDUCTIONS = {"MEAN": "mean", "REDUCE_MAX": "max", "REDUCE_MIN": "min", "SUM": "sum"}
_GLOBAL_POOLS = {"MEAN": "GlobalAveragePooling2D", "REDUCE_MAX": "GlobalMaxPooling2D"}


def _reduction(call: OperatorImport) -> Any:
    value, kept = call.value(), bool(call.options.keepDims)
    axes = call.axes(call.constant(1), len(value.shape))
    if axes == [1, 2] and len(value.shape) == 4 and call.kind in _GLOBAL_POOLS:
        return getattr(_layers(), _GLOBAL_POOLS[call.kind])(keepdims=kept, name=call.name)(value)
    return getattr(_ops(), _REDUCTIONS[call.kind])(value, axis=axes, keepdims=kept)


def _reshape(call: OperatorImport) -> Any:
    return _layers().Reshape(call.shape, name=call.name)(call.value())


def _transpose(call: OperatorImport) -> Any:
    order = [int(each) for each in call.constant(1)]
    if order[0] != 0:
        raise call.refusal("of the batch")
    return _layers().Permute(order[1:], name=call.name)(call.value())


def _pad(call: OperatorImport) -> Any:
    widths, value = call.constant(1).tolist(), call.value()
    number = float(call.constant(2).item()) if call.kind == "PADV2" else 0.0
    if widths[0] != [0, 0]:
        raise call.refusal("of the batch")
    if len(widths) == 4 and widths[3] == [0, 0] and number == 0:
        return _layers().ZeroPadding2D(widths[1:3], name=call.name)(value)
    return _ops().pad(value, widths, constant_values=number)


def _mirror_pad(call: OperatorImport) -> Any:
    widths = call.constant(1).tolist()
    if widths[0] != [0, 0]:
        raise call.refusal("of the batch")
    return _ops().pad(call.value(), widths, mode=MIRRORS[call.options.mode])


def _concatenation(call: OperatorImport) -> Any:
    if not all(map(is_value, call.operands)):
        raise call.refusal("with a constant")
    (axis,) = call.axes(call.options.axis, len(call.shape) + 1)
    return _layers().Concatenate(axis, name=call.name)(list(call.operands))


def _pack(call: OperatorImport) -> Any:
    if not all(map(is_value, call.operands)):
        raise call.refusal("with a constant")
    (axis,) = call.axes(call.options.axis, len(call.shape) + 1)
    return _ops().stack(list(call.operands), axis=axis)


def _unpack(call: OperatorImport) -> Any:
    (axis,) = call.axes(call.options.axis, len(call.value().shape))
    return _ops().unstack(call.value(), call.options.num, axis)


def _split(call: OperatorImport) -> Any:
    """Return the parts; the axis is the first operand of SPLIT, the last of SPLIT_V."""
    value, axis = (
        (call.value(1), call.constant(0))
        if call.kind == "SPLIT"
        else (call.value(0), call.constant(2))
    )
    (one,) = call.axes(axis, len(value.shape))
    sizes = [shape[one - 1] for shape in call.shapes]
    return _ops().split(value, np.cumsum(sizes)[:-1].tolist(), axis=one)


def _slice(call: OperatorImport) -> Any:
    starts, value = call.constant(1).tolist(), call.value()
    if starts[0] != 0:
        raise call.refusal("of the batch")
    ends = [start + size for start, size in zip(starts[1:], call.shape, strict=True)]
    return value[(slice(None), *map(slice, starts[1:], ends))]


def _strided_slice(call: OperatorImport) -> Any:
    """Return a slice. Masks: bit i of axis i leaves its start or end out, or drops the axis."""
    options, value = call.options, call.value()
    starts, ends, steps = (call.constant(i).tolist() for i in (1, 2, 3))
    if options.ellipsisMask or options.newAxisMask or getattr(options, "offset", False):
        raise call.refusal("with an ellipsis or a new axis")
    parts: list[Any] = []
    for i, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True)):
        low, high = _end(options.beginMask, i, start), _end(options.endMask, i, end)
        single = options.shrinkAxisMask >> i & 1
        parts.append(start if single else slice(low, high, step))
    if parts[0] not in (slice(None, None, 1), slice(0, 1, 1), slice(0, None, 1), slice(None, 1, 1)):
        raise call.refusal("of the batch")
    return value[(slice(None), *parts[1:])]


def _end(mask: int, axis: int, number: int) -> int | None:
    return None if mask >> axis & 1 else number


def _gather(call: OperatorImport) -> Any:
    if getattr(call.options, "batchDims", 0):
        raise call.refusal("by batch")
    value = call.value()
    (axis,) = call.axes(call.options.axis, len(value.shape))
    return _ops().take(value, call.constant(1), axis=axis)


def _reverse(call: OperatorImport) -> Any:
    value = call.value()
    return _ops().flip(value, axis=call.axes(call.constant(1), len(value.shape)))


def _matmul(call: OperatorImport) -> Any:
    one, other = _broadcastable(call)
    if call.options.adjX:
        one = _ops().swapaxes(one, -1, -2)
    if call.options.adjY:
        other = _ops().swapaxes(other, -1, -2)
    return _ops().matmul(one, other)


def _resize(method: str) -> Rule:
    def rule(call: OperatorImport) -> Any:
        height, width = call.shape[:2]
        value, options = call.value(), call.options
        whole = height % value.shape[1] == 0 and width % value.shape[2] == 0
        # Where each pixel is repeated, both ways to count pixels are the same.
        centred = options.halfPixelCenters or (method == "nearest" and whole)
        if options.alignCorners or not centred:
            raise call.refusal("that doesn't count from pixels' centres")
        return _ops().image.resize(value, (height, width), interpolation=method)

    return rule


RULES: dict[str, Rule] = {
    "AVERAGE_POOL_2D": _pool("AveragePooling2D"),
    "BATCH_MATMUL": _matmul,
    "CONCATENATION": _concatenation,
    "CONV_2D": weighted.convolution,
    "DEPTHWISE_CONV_2D": weighted.depthwise,
    "ELU": _activation("elu"),
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": weighted.dense,
    "GATHER": _gather,
    "GELU": _gelu,
    "HARD_SWISH": _activation("hard_silu"),
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _activation("sigmoid"),
    "MAX_POOL_2D": _pool("MaxPooling2D"),
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": weighted.prelu,
    "RELU": _relu(None),
    "RELU6": _relu(6.0),
    "RELU_0_TO_1": _relu(1.0),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "REVERSE_V2": _reverse,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TANH": _activation("tanh"),
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": weighted.transposed,
    "UNPACK": _unpack,
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(_UNARY, _unary),
}

# Operators that are computed at once where all their operands are constants.
FOLDED: dict[str, Callable[[Array], Array]] = {
    "DEQUANTIZE": lambda half: half.astype(np.float32),
}


def with_activation(call: OperatorImport, value: Any) -> Any:
    """Return a value behind the activation that its operator is fused with."""
    layers, name = _layers(), f"{call.name}_activation"
    makers: dict[int, Callable[[], Any]] = {
        RELU: lambda: layers.ReLU(name=name),
        RELU_N1_TO_1: lambda: lambda each: _ops().clip(each, -1.0, 1.0),
        RELU6: lambda: layers.ReLU(6.0, name=name),
        TANH: lambda: layers.Activation("tanh", name=name),
    }
    if call.activation == NO_ACTIVATION:
        return value
    if call.activation not in makers:
        raise call.refusal("with an unknown activation")
    return makers[call.activation]()(value)
