"""A grouped convolution as one convolution for each group."""

from typing import Any

import numpy as np

from kedge_convert.lowering.stand import Stand
from kedge_convert.toolkit import require


def groups(layer: Any) -> Stand | None:
    """Return a Conv2D of several groups as slices, convolutions and concatenation, or None."""
    if type(layer).__name__ != "Conv2D" or layer.groups == 1 or not layer.built:
        return None
    if layer.data_format != "channels_last":
        return None
    keras = require("keras")
    kernel, *bias = layer.get_weights()
    parts = zip(*(np.split(each, layer.groups, axis=-1) for each in (kernel, *bias)), strict=True)
    convolutions = [_part(layer, i, list(weights)) for i, weights in enumerate(parts)]

    depth = kernel.shape[2]

    def grouped(value: Any) -> Any:
        pieces = [value[..., i * depth : (i + 1) * depth] for i in range(layer.groups)]
        pairs = zip(convolutions, pieces, strict=True)
        joined = keras.ops.concatenate([each(piece) for each, piece in pairs], axis=-1)
        return layer.activation(joined)

    return Stand(grouped, tuple(convolutions))


def _part(layer: Any, number: int, weights: list[Any]) -> Any:
    config = layer.get_config()
    changes = {
        "groups": 1,
        "filters": layer.filters // layer.groups,
        "activation": "linear",
        "name": f"{layer.name}_group{number}",
    }
    part = type(layer).from_config({**config, **changes})
    part.build((None, None, None, weights[0].shape[2]))
    part.set_weights(weights)
    return part
