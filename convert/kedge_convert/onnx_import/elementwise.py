"""Rules for what computes each number by itself, and for norms, softmaxes and reductions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kedge_convert.onnx_import.calls import IMAGES, HeldValue, OnnxCall, OnnxRule, images, plain
from kedge_convert.program.reading import Array
from kedge_convert.program.weighted import with_weights
from kedge_convert.toolkit import require

LAST_AXIS = 13  # the first opset whose softmax is over one axis


def _layers() -> Any:
    return require("keras").layers


def activation(name: str, *, positive: bool = False) -> Callable[[OnnxCall], HeldValue]:
    """Return the rule of a function that Keras has by a name."""

    def rule(call: OnnxCall) -> HeldValue:
        layer = _layers().Activation(name, name=call.name)
        return call.value().with_symbol(layer(call.value().symbol), positive=positive)

    return rule


def unary(name: str) -> OnnxRule:
    """Return the rule of an operation of keras.ops."""

    def rule(call: OnnxCall) -> HeldValue:
        value = call.value()
        return value.with_symbol(getattr(require("keras").ops, name)(value.symbol))

    return rule


def relu(call: OnnxCall) -> HeldValue:
    """Return a ReLU."""
    value = call.value()
    return value.with_symbol(_layers().ReLU(name=call.name)(value.symbol), positive=True)


def clip(call: OnnxCall) -> HeldValue:
    """Return a ReLU with a ceiling, or a clip."""
    low, high = (
        float(bound.item()) if (bound := call.stated(name, i)) is not None else other
        for name, i, other in (("min", 1, -np.inf), ("max", 2, np.inf))
    )
    value = call.value()
    if low == 0:
        layer = _layers().ReLU(high if np.isfinite(high) else None, name=call.name)
        return value.with_symbol(layer(value.symbol), positive=True)
    return value.with_symbol(require("keras").ops.clip(value.symbol, low, high))


def leaky_relu(call: OnnxCall) -> HeldValue:
    """Return a LeakyReLU."""
    slope = float(call.attribute("alpha", 0.01))
    layer = _layers().LeakyReLU(negative_slope=slope, name=call.name)
    return call.value().with_symbol(layer(call.value().symbol))


def elu(call: OnnxCall) -> HeldValue:
    """Return an ELU."""
    if call.attribute("alpha", 1.0) != 1:
        raise call.refusal(f"with an alpha of {call.attribute('alpha'):.3g}")
    return activation("elu")(call)


def hard_sigmoid(call: OnnxCall) -> HeldValue:
    """Return Keras's hard sigmoid, or a clip of another slope."""
    slope, offset = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if np.isclose(slope, 1 / 6, rtol=1e-5) and offset == 0.5:
        return activation("hard_sigmoid", positive=True)(call)
    value, ops = call.value(), require("keras").ops
    return value.with_symbol(ops.clip(slope * value.symbol + offset, 0.0, 1.0), positive=True)


def gelu(call: OnnxCall) -> HeldValue:
    """Return a GELU."""
    approximate = call.attribute("approximate", "none") == "tanh"
    value, ops = call.value(), require("keras").ops
    return value.with_symbol(ops.gelu(value.symbol, approximate=approximate))


def prelu(call: OnnxCall) -> HeldValue:
    """Return a PReLU; it shares a slope along each axis of length 1."""
    value, slopes = call.value(), _beside(call, call.constant(1), call.value())
    shared = [axis for axis, size in enumerate(slopes.shape) if axis and size == 1]
    layer = _layers().PReLU(shared_axes=shared or None, name=call.name)
    return value.with_symbol(with_weights(layer, value.symbol, slopes[0]))


# The operation of keras.ops and the layer of two values, where there is one.
BINARY = {
    "Add": ("add", "Add"),
    "Div": ("divide", ""),
    "Max": ("maximum", "Maximum"),
    "Min": ("minimum", "Minimum"),
    "Mul": ("multiply", "Multiply"),
    "Pow": ("power", ""),
    "Sub": ("subtract", "Subtract"),
}


def binary(call: OnnxCall) -> HeldValue:
    """Return an operation of two values, or of a value and a constant."""
    if len(call.operands) != 2:
        raise call.refusal(f"of {len(call.operands)} operands")
    operation, layer = BINARY[call.operation.kind]
    held = next(each for each in call.operands if isinstance(each, HeldValue))
    one, other = (_beside(call, each, held) for each in call.operands)
    if layer and not isinstance(one, np.ndarray) and not isinstance(other, np.ndarray):
        return held.with_symbol(getattr(_layers(), layer)(name=call.name)([one, other]))
    return held.with_symbol(getattr(require("keras").ops, operation)(one, other))


def _beside(call: OnnxCall, operand: Any, held: HeldValue) -> Any:
    """Return an operand in a value's order of axes; a constant as an array of as many axes."""
    rank = len(held.order)
    if isinstance(operand, HeldValue):
        if len(operand.order) != rank:
            raise call.refusal("of two values that differ in rank")
        return operand.ordered(held.order)
    constant: Array = np.asarray(operand, np.float32)
    if constant.ndim > rank or (constant.ndim == rank and constant.shape[0] != 1):
        raise call.refusal("with a constant for each image of a batch")
    whole = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    return whole.transpose(held.order)


def batch_norm(call: OnnxCall) -> HeldValue:
    """Return a BatchNormalization."""
    value = call.value()
    held = images(call.images()) if len(value.order) == len(IMAGES) else plain(value.plain)
    layer = _layers().BatchNormalization(
        axis=held.axis(1), epsilon=float(call.attribute("epsilon", 1e-5)), name=call.name
    )
    numbers = [call.constant(i) for i in (1, 2, 3, 4)]
    return held.with_symbol(with_weights(layer, held.symbol, *numbers))


def layer_norm(call: OnnxCall) -> HeldValue:
    """Return a LayerNormalization over the last axis."""
    value = call.value()
    rank = len(value.order)
    if int(call.attribute("axis", -1)) % rank != rank - 1:
        raise call.refusal("over several axes")
    layer = _layers().LayerNormalization(
        axis=value.axis(-1), epsilon=float(call.attribute("epsilon", 1e-5)), name=call.name
    )
    gamma = call.constant(1)
    beta = call.constant(2) if len(call.operands) > 2 else np.zeros_like(gamma)
    return value.with_symbol(with_weights(layer, value.symbol, gamma, beta))


def softmax(call: OnnxCall) -> HeldValue:
    """Return a Softmax; of older files, whose axis begins a flat list, where that is one axis."""
    value, old = call.value(), call.operation.opset < LAST_AXIS
    axis = int(call.attribute("axis", 1 if old else -1)) % len(value.order)
    (long,) = call.axes(axis, len(value.order))
    if old and any(size != 1 for size in value.shape[long + 1 :]):
        raise call.refusal("over several axes")
    layer = _layers().Softmax(axis=value.axis(long), name=call.name)
    return value.with_symbol(layer(value.symbol), positive=True)


_GLOBAL = {"ReduceMean": "GlobalAveragePooling2D", "ReduceMax": "GlobalMaxPooling2D"}


def reduction(operation: str) -> OnnxRule:
    """Return the rule of a mean, sum or extreme over some axes."""

    def rule(call: OnnxCall) -> HeldValue:
        value, kept = call.value(), bool(call.attribute("keepdims", 1))
        stated, rank = call.stated("axes", 1), len(value.order)
        axes = call.axes(range(rank) if stated is None else stated, rank)
        spatial = value.order == IMAGES and axes == [2, 3] and call.operation.kind in _GLOBAL
        if spatial:
            layer = getattr(_layers(), _GLOBAL[call.operation.kind])
            symbol = layer(keepdims=kept, name=call.name)(value.symbol)
        else:
            function: Callable[..., Any] = getattr(require("keras").ops, operation)
            symbol = function(value.symbol, axis=[value.axis(a) for a in axes], keepdims=kept)
        return value.with_symbol(symbol) if kept else without(value, axes, symbol)

    return rule


def without(value: HeldValue, axes: list[int], symbol: Any) -> HeldValue:
    """Return a value that lacks some of another one's axes."""
    left = [axis for axis in range(len(value.order)) if axis not in axes]
    return HeldValue(symbol, tuple(left.index(axis) for axis in value.order if axis in left))
