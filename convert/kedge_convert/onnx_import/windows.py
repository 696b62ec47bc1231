"""Rules for what slides a window over images: convolutions and pools."""

from typing import Any

import numpy as np

from kedge_convert.onnx_import.calls import HeldValue, OnnxCall, images
from kedge_convert.program.weighted import with_weights
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

Sides = list[tuple[int, int]]  # (before, after) of height and width


def convolution(call: OnnxCall) -> HeldValue:
    """Return a Conv2D, or a DepthwiseConv2D where each channel is a group."""
    kernel = _kernel(call)
    groups, sizes = int(call.attribute("group", 1)), kernel.shape[2:]
    value, padding = padded(call, _pads(call, sizes), sizes)
    window = _window(call, padding)
    outputs, channels = kernel.shape[0], value.shape[-1]
    bias = call.bias(2, outputs)
    layers = require("keras").layers
    if groups > 1 and groups == channels and len(set(window["strides"])) == 1:
        layer = layers.DepthwiseConv2D(sizes, depth_multiplier=outputs // channels, **window)
        flat = kernel.reshape(channels, -1, *sizes)
        return images(with_weights(layer, value, flat.transpose(2, 3, 0, 1), bias))
    layer = layers.Conv2D(outputs, sizes, groups=groups, **window)
    return images(with_weights(layer, value, kernel.transpose(2, 3, 1, 0), bias))


def transposed(call: OnnxCall) -> HeldValue:
    """Return a Conv2DTranspose, its borders cut off as the pads say."""
    kernel = _kernel(call)
    if int(call.attribute("group", 1)) > 1 or "output_shape" in call.operation.attributes:
        raise call.refusal("of groups or a stated shape")
    sizes, extra = kernel.shape[2:], call.attribute("output_padding", (0, 0))
    pads = _pads(call, sizes)
    window = _window(call, "valid")
    cuts = [(before, after - more) for (before, after), more in zip(pads, extra, strict=True)]
    short = any(size < step for size, step in zip(sizes, window["strides"], strict=True))
    if short or any(cut < 0 for both in cuts for cut in both):
        raise call.refusal("with a gap between its windows, or a border behind them")
    layers, outputs = require("keras").layers, kernel.shape[1]
    bias = call.bias(2, outputs)
    layer = layers.Conv2DTranspose(outputs, sizes, **window)
    result = with_weights(layer, call.images(), kernel.transpose(2, 3, 1, 0), bias)
    if np.any(cuts):
        result = layers.Cropping2D(cuts, name=f"{call.name}_cropping")(result)
    return images(result)


def max_pool(call: OnnxCall) -> HeldValue:
    """Return a MaxPooling2D; the file's pads never win."""
    sizes = _sizes(call)
    pads = _pads(call, sizes)
    if call.attribute("ceil_mode", 0):
        pads = _filled(call, pads, sizes)
    value, padding = padded(call, pads, sizes, highest=True)
    layer = require("keras").layers.MaxPooling2D(sizes, **_pool(call, padding))
    return images(layer(value))


def average_pool(call: OnnxCall) -> HeldValue:
    """Return an AveragePooling2D; `same` leaves the pads out of the mean, as ONNX does unasked."""
    sizes = _sizes(call)
    pads = _pads(call, sizes)
    counted = bool(call.attribute("count_include_pad", 0))
    if call.attribute("ceil_mode", 0) and _filled(call, pads, sizes) != pads:
        raise call.refusal("whose last window isn't whole")
    value, padding = padded(call, pads, sizes, zeros=counted)
    if np.any(pads) and (padding == "same") == counted:
        raise call.refusal("with pads outside of the mean")
    layer = require("keras").layers.AveragePooling2D(sizes, **_pool(call, padding))
    return images(layer(value))


def global_pool(kind: str) -> Any:
    """Return the rule of GlobalAveragePool or GlobalMaxPool."""

    def rule(call: OnnxCall) -> HeldValue:
        layer = getattr(require("keras").layers, f"{kind}2D")(keepdims=True, name=call.name)
        return images(layer(call.images()))

    return rule


def padded(
    call: OnnxCall, pads: Sides, sizes: Any, *, zeros: bool = False, highest: bool = False
) -> tuple[Any, str]:
    """Return the images with their pads, and the padding that is left to the layer.

    `zeros`: the pads are seen. `highest`: the largest of each window is wanted, so that pads may
    repeat the border where zero could win.
    """
    value, held = call.images(), call.value()
    if not np.any(pads):
        return value, "valid"
    if not zeros and pads == _same(call, value.shape[1:3], sizes):
        return value, "same"
    keras = require("keras")
    if highest and not held.positive:
        if max(map(max, pads)) > 1:
            raise call.refusal("with pads of two and more")
        return keras.ops.pad(value, [(0, 0), *pads, (0, 0)], mode="symmetric"), "valid"
    return keras.layers.ZeroPadding2D(pads)(value), "valid"


def _kernel(call: OnnxCall) -> Floats:
    kernel = call.constant(1)
    if kernel.ndim != 4:
        raise call.refusal(f"of {kernel.ndim - 2} sides")
    return np.asarray(kernel, np.float32)


def _sizes(call: OnnxCall) -> tuple[int, ...]:
    sizes = tuple(call.attribute("kernel_shape", ()))
    if len(sizes) != 2 or any(each != 1 for each in call.attribute("dilations", (1,))):
        raise call.refusal("that isn't over whole squares of images")
    return sizes


def _strides(call: OnnxCall) -> tuple[int, int]:
    height, width = call.attribute("strides", (1, 1))
    return height, width


def _window(call: OnnxCall, padding: str) -> dict[str, Any]:
    dilation = tuple(call.attribute("dilations", (1, 1)))
    return {**_pool(call, padding), "dilation_rate": dilation}


def _pool(call: OnnxCall, padding: str) -> dict[str, Any]:
    return {"strides": _strides(call), "padding": padding, "name": call.name}


def _pads(call: OnnxCall, sizes: Any) -> Sides:
    """Return the pads. `auto_pad` states them in older files."""
    automatic = call.attribute("auto_pad", "NOTSET")
    if automatic in ("NOTSET", "VALID"):
        top, left, bottom, right = call.attribute("pads", (0, 0, 0, 0))
        return [(top, bottom), (left, right)]
    same = _same(call, call.images().shape[1:3], sizes)
    return same if automatic == "SAME_UPPER" else [(after, before) for before, after in same]


def _same(call: OnnxCall, lengths: Any, sizes: Any) -> Sides:
    """Return the pads of TensorFlow's `same`, the odd one after."""
    pads = []
    dilations = call.attribute("dilations", (1, 1))
    for length, size, step, far in zip(lengths, sizes, _strides(call), dilations, strict=True):
        total = max((-(-length // step) - 1) * step + (size - 1) * far + 1 - length, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def _filled(call: OnnxCall, pads: Sides, sizes: Any) -> Sides:
    """Return the pads with what the last window lacks (`ceil_mode`).

    A window that would begin in the pads behind the image is left out.
    """
    found = []
    lengths, strides = call.images().shape[1:3], _strides(call)
    for length, size, step, (before, after) in zip(lengths, sizes, strides, pads, strict=True):
        count = -(-(length + before + after - size) // step) + 1
        count -= (count - 1) * step >= length + before
        found.append((before, max((count - 1) * step + size - length - before, after)))
    return found
