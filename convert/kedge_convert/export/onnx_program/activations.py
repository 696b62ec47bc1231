"""Activations: as operators of their own, and fused into others."""

import math
from collections.abc import Callable

from kedge_convert.export.onnx_program.calls import Made, OperatorCall, Rule
from kedge_convert.export.onnx_program.layout import FIRST, IMAGE, LAST

Activation = Callable[[OperatorCall, str], str]


def _plain(kind: str) -> Activation:
    return lambda call, value: call.node(kind, value)


def _clip(low: float, high: float) -> Activation:
    return lambda call, value: call.node("Clip", value, call.number(low), call.number(high))


def _leaky_relu(call: OperatorCall, value: str) -> str:
    return call.node("LeakyRelu", value, alpha=float(call.options.alpha))


def _gelu(call: OperatorCall, value: str) -> str:
    """Write x / 2 (1 + gate(x)): the gate is erf, or its approximation by tanh."""
    gate = _tanh_gate if call.options.approximate else _erf_gate
    half = call.node("Mul", value, call.number(0.5))
    return call.node("Mul", half, call.node("Add", gate(call, value), call.number(1)))


def _erf_gate(call: OperatorCall, value: str) -> str:
    return call.node("Erf", call.node("Mul", value, call.number(math.sqrt(0.5))))


def _tanh_gate(call: OperatorCall, value: str) -> str:
    square = call.node("Mul", value, value)
    cube = call.node("Mul", square, call.node("Mul", value, call.number(0.044715)))
    inner = call.node("Mul", call.node("Add", value, cube), call.number(math.sqrt(2 / math.pi)))
    return call.node("Tanh", inner)


def _prelu(call: OperatorCall) -> Made:
    # Engines take the slopes to be those of channels that come first.
    layout = FIRST if len(call.shape()) == IMAGE else LAST
    return Made(call.node("PRelu", call.value(0, layout), call.value(1, layout)), layout)


# schema.fbs: ActivationFunctionType; 0 is none.
FUSED: dict[int, Activation] = {
    1: _plain("Relu"),
    2: _clip(-1, 1),
    3: _clip(0, 6),
    4: _plain("Tanh"),
}


def with_fused(call: OperatorCall, made: Made) -> Made:
    """Return a value behind the activation that its operator is fused with."""
    if not call.activation:
        return made
    if call.activation not in FUSED:
        raise call.refusal(f"with the activation {call.activation}")
    return Made(FUSED[call.activation](call, made.name), made.layout)


def _rule(activation: Activation) -> Rule:
    def rule(call: OperatorCall) -> Made:
        layout = call.layout()
        return Made(activation(call, call.value(0, layout)), layout)

    return rule


RULES: dict[str, Rule] = {
    "ELU": _rule(_plain("Elu")),
    "GELU": _rule(_gelu),
    "HARD_SWISH": _rule(_plain("HardSwish")),
    "LEAKY_RELU": _rule(_leaky_relu),
    "LOGISTIC": _rule(_plain("Sigmoid")),
    "PRELU": _prelu,
    "RELU": _rule(_plain("Relu")),
    "RELU6": _rule(_clip(0, 6)),
    "RELU_0_TO_1": _rule(_clip(0, 1)),
    "RELU_N1_TO_1": _rule(_clip(-1, 1)),
    "TANH": _rule(_plain("Tanh")),
}
