"""A grouped convolution with one input channel a group is a depthwise one, and is faster as such.

ConvNeXt's 7x7 convolutions are written so.
"""

from typing import Any

from kedge_convert.toolkit import require


def depthwise(layer: Any) -> Any:
    """Return the DepthwiseConv2D that a Conv2D is, or None."""
    if type(layer).__name__ != "Conv2D" or layer.groups == 1 or not layer.built:
        return None
    kernel, *bias = layer.get_weights()
    height, width, depth, outputs = kernel.shape
    square = layer.strides[0] == layer.strides[1]  # TensorFlow's depthwise has one stride
    if depth != 1 or not square or layer.data_format != "channels_last":
        return None
    same = ("strides", "padding", "dilation_rate", "activation", "use_bias", "name")
    made = require("keras").layers.DepthwiseConv2D(
        (height, width),
        depth_multiplier=outputs // layer.groups,
        **{key: getattr(layer, key) for key in same},
    )
    made.build((None, None, None, layer.groups))
    # Output f of Conv2D is of group f // multiplier, as in [h, w, channel, multiplier].
    made.set_weights([kernel.reshape(height, width, layer.groups, -1), *bias])
    return made
