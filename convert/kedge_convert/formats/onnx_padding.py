"""Zeros around a max pooling, kept from an optimiser of onnxruntime's that takes them for nothing.

Its PadFusion (on by default, onnxruntime 1.17 to 1.31 at least) makes a Pad of zeros part of the
MaxPool behind it, whose own padding is minus infinity: wrong wherever all values of a window are
negative, as in ResNet50V2, whose pooling follows a convolution. It leaves a Pad of anything but
zero alone; the least normal number is as good as zero.
"""

from typing import Any

import numpy as np

from kedge_convert.toolkit import require

TINY = np.float32(np.finfo(np.float32).tiny)


def guard(model: Any) -> Any:
    """Return the ModelProto with zeros before a MaxPool written as TINY; changes it in place."""
    pooled = {node.input[0] for node in model.graph.node if node.op_type == "MaxPool"}
    constants = {each.name: each for each in model.graph.initializer}
    pads = [node for node in model.graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    for pad in filter(lambda pad: _of_zeros(pad, constants), pads):
        name = f"{pad.output[0]}/value"
        value = require("onnx").numpy_helper.from_array(np.array(TINY), name)
        model.graph.initializer.append(value)
        pad.input[:] = [*pad.input[:2], name, *pad.input[3:]]
    return model


def _of_zeros(pad: Any, constants: dict[str, Any]) -> bool:
    """Whether it pads with a constant that is zero, as it does when nothing is said."""
    modes = [each.s for each in pad.attribute if each.name == "mode"]
    if modes and modes != [b"constant"]:
        return False
    if len(pad.input) < 3 or not pad.input[2]:
        return True
    held = constants.get(pad.input[2])
    return held is not None and not require("onnx").numpy_helper.to_array(held).any()
