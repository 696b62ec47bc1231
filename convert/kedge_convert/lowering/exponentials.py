"""Activations that TFLite writes with exp(x) of any x, with the exponential of numbers below 0.

exp(22) is 3.6e9: in int8, whose range it sets, all else is 0, and beyond exp(88) float32 ends.
"""

from typing import Any

from kedge_convert.lowering.activations import (
    Function,
    below,
    elementwise,
    elu,
    with_activation,
)
from kedge_convert.lowering.stand import Stand
from kedge_convert.toolkit import require

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def exponential(layer: Any) -> Stand | None:
    """Return a layer or operation of such an activation without large numbers, or None."""
    return elementwise(layer, OPERATIONS) or with_activation(layer, ACTIVATIONS)


def _softplus(value: Any) -> Any:
    ops = require("keras").ops
    return ops.relu(value) + ops.log(ops.exp(ops.abs(value) * -1.0) + 1.0)


def _log_sigmoid(value: Any) -> Any:
    ops = require("keras").ops
    return below(value) - ops.log(ops.exp(ops.abs(value) * -1.0) + 1.0)


def _mish(value: Any) -> Any:
    # Misra 2019, arXiv:1908.08681.
    return value * require("keras").ops.tanh(_softplus(value))


def _selu(value: Any) -> Any:
    # Klambauer et al. 2017, arXiv:1706.02515, with Keras's digits.
    ops = require("keras").ops
    low = ops.exp(below(value)) - 1.0
    return ops.relu(value) * SELU_SCALE + low * (SELU_SCALE * SELU_ALPHA)


# By the name of Keras's function, and by the class of its operation.
ACTIVATIONS: dict[str, Function] = {
    "softplus": _softplus,
    "log_sigmoid": _log_sigmoid,
    "mish": _mish,
    "selu": _selu,
    "celu": elu,  # Keras's function of that name; a layer's has no alpha of its own
}
OPERATIONS: dict[str, Function] = {
    "Softplus": _softplus,
    "LogSigmoid": _log_sigmoid,
    "Selu": _selu,
}
