"""Replace activations by operators that TFLite has in 16 bits, and exp of large numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kedge_convert.toolkit import require


@dataclass(frozen=True)
class Replacement:
    """A function of one tensor in plain operators; `layers` are those that it calls."""

    function: Callable[[Any], Any]
    layers: tuple[Any, ...] = ()

    def as_layer(self, name: str) -> Any:
        """Return the Keras layer that calls it. Operators inside of it need no names."""

        class ReplacementLayer(require("keras").layers.Layer):  # type: ignore[misc]
            def __init__(self, replacement: Replacement) -> None:
                super().__init__(name=name)
                self.function, self.inner = replacement.function, list(replacement.layers)

            def call(self, value: Any) -> Any:
                return self.function(value)

        return ReplacementLayer(self)


# Layers whose activation comes last of all that they do.
LAST = frozenset(
    {"Conv2D", "Conv2DTranspose", "Dense", "DepthwiseConv2D", "EinsumDense", "SeparableConv2D"}
)


def activation(layer: Any) -> Replacement | None:
    """Return a layer whose activation is in ACTIVATIONS as the linear layer and that, or None."""
    return with_activation(layer, ACTIVATIONS)


def with_activation(layer: Any, functions: "dict[str, Function]") -> Replacement | None:
    """Return a layer whose activation is among `functions`, by name, in two parts, or None."""
    function = functions.get(getattr(getattr(layer, "activation", None), "__name__", ""))
    if function is None or type(layer).__name__ == "Activation":
        return function and Replacement(function)
    if type(layer).__name__ not in LAST:  # a recurrent cell's is inside its loop
        return None
    linear = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    linear.build(layer.get_build_config()["input_shape"])
    linear.set_weights(layer.get_weights())
    return Replacement(lambda value: function(linear(value)), (linear,))


def elementwise(layer: Any, functions: "dict[str, Function] | None" = None) -> Replacement | None:
    """Return the replacement of a Keras operation or parameterless layer of one operand, or None.

    `functions`: by the name of its class, OPERATIONS if not given.
    """
    function = (OPERATIONS if functions is None else functions).get(type(layer).__name__)
    return function and Replacement(function)


def prelu(layer: Any) -> Replacement | None:
    """Return a PReLU as the two halves of its line, or None."""
    if type(layer).__name__ != "PReLU":
        return None
    ops, slope = require("keras").ops, np.asarray(layer.alpha)
    return Replacement(lambda value: ops.relu(value) + below(value) * slope)


def below(value: Any) -> Any:
    """Return min(x, 0).

    Not by MINIMUM: TFLite's quantiser gives its input the range of its output, and cuts off all
    that is positive.
    """
    return require("keras").ops.relu(value * -1.0) * -1.0


def _hard_silu(value: Any) -> Any:
    # Multiplied in this order: x * (relu6(x + 3) / 6) would be fused to HARD_SWISH again.
    return require("keras").ops.relu6(value + 3.0) * (value * (1 / 6))


def elu(value: Any) -> Any:
    """Return ELU with alpha 1, which is CELU with alpha 1, too."""
    ops = require("keras").ops
    return ops.relu(value) + (ops.exp(below(value)) - 1.0)


def _negative(value: Any) -> Any:
    return value * -1.0


def _square(value: Any) -> Any:
    return value * value


Function = Callable[[Any], Any]

# By the name of Keras's function: hard_swish is an alias of hard_silu.
ACTIVATIONS: dict[str, Function] = {"hard_silu": _hard_silu, "elu": elu}
# By the class of Keras's operation.
OPERATIONS: dict[str, Function] = {
    "HardSilu": _hard_silu,
    "Negative": _negative,
    "Square": _square,
}


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def exponential(layer: Any) -> Replacement | None:
    """Return a layer or operation of such an activation without large numbers, or None."""
    return elementwise(layer, EXPONENTIAL_OPERATIONS) or with_activation(
        layer, EXPONENTIAL_ACTIVATIONS
    )


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
EXPONENTIAL_ACTIVATIONS: dict[str, Function] = {
    "softplus": _softplus,
    "log_sigmoid": _log_sigmoid,
    "mish": _mish,
    "selu": _selu,
    "celu": elu,  # Keras's function of that name; a layer's has no alpha of its own
}
EXPONENTIAL_OPERATIONS: dict[str, Function] = {
    "Softplus": _softplus,
    "LogSigmoid": _log_sigmoid,
    "Selu": _selu,
}
