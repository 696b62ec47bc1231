"""Rules for the operators with kernels: convolutions, dense layers, PReLU."""

from typing import Any

import numpy as np

from kedge_convert.program.calls import OperatorImport
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

PADDINGS = ("same", "valid")  # schema.fbs: Padding


def convolution(call: OperatorImport) -> Any:
    """Return a Conv2D, of several groups where the kernel is shallower than its input."""
    kernel = call.constant(1).transpose(1, 2, 3, 0)
    layer = require("keras").layers.Conv2D(
        kernel.shape[3],
        kernel.shape[:2],
        groups=call.value().shape[-1] // kernel.shape[2],
        dilation_rate=_dilation(call),
        **_window(call),
    )
    return with_weights(layer, call.value(), kernel, call.bias(2, kernel.shape[3]))


def depthwise(call: OperatorImport) -> Any:
    """Return a DepthwiseConv2D."""
    kernel, channels = call.constant(1)[0], call.value().shape[-1]
    window = _window(call)
    if window["strides"][0] != window["strides"][1]:
        raise call.refusal("with two different strides")
    layer = require("keras").layers.DepthwiseConv2D(
        kernel.shape[:2],
        depth_multiplier=kernel.shape[2] // channels,
        dilation_rate=_dilation(call),
        **window,
    )
    bias = call.bias(2, kernel.shape[2])
    return with_weights(layer, call.value(), kernel.reshape(*kernel.shape[:2], channels, -1), bias)


def transposed(call: OperatorImport) -> Any:
    """Return a Conv2DTranspose; its first operand is the shape of its output."""
    kernel = call.constant(1).transpose(1, 2, 0, 3)
    layer = require("keras").layers.Conv2DTranspose(
        kernel.shape[2], kernel.shape[:2], **_window(call)
    )
    return with_weights(layer, call.value(2), kernel, call.bias(3, kernel.shape[2]))


def dense(call: OperatorImport) -> Any:
    """Return a Dense layer, behind a Flatten where the operator flattens its input itself."""
    layers, value = require("keras").layers, call.value()
    kernel = call.constant(1).T
    if len(value.shape) > 2 and not call.options.keepNumDims:
        value = layers.Flatten(name=f"{call.name}_flatten")(value)
    layer = layers.Dense(kernel.shape[1], name=call.name)
    return with_weights(layer, value, kernel, call.bias(2, kernel.shape[1]))


def prelu(call: OperatorImport) -> Any:
    """Return a PReLU layer; it shares a slope along each axis of length 1."""
    value, slopes = call.value(), call.constant(1)
    slopes = slopes.reshape((1,) * (len(value.shape) - 1 - slopes.ndim) + slopes.shape)
    shared = [i + 1 for i, size in enumerate(slopes.shape) if size == 1]
    layer = require("keras").layers.PReLU(shared_axes=shared or None, name=call.name)
    return with_weights(layer, value, slopes)


def _window(call: OperatorImport) -> dict[str, Any]:
    return {
        "strides": (call.options.strideH, call.options.strideW),
        "padding": PADDINGS[call.options.padding],
        "name": call.name,
    }


def _dilation(call: OperatorImport) -> tuple[int, int]:
    return call.options.dilationHFactor, call.options.dilationWFactor


def with_weights(layer: Any, value: Any, *weights: Floats) -> Any:
    """Return what a layer makes of a Keras tensor, the layer's weights set."""
    result = layer(value)
    layer.set_weights([np.asarray(each, np.float32) for each in weights])
    return result
