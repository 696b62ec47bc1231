"""Layer normalisation without SQUARED_DIFFERENCE and NEG, which have no 16-bit kernels."""

from typing import Any

import numpy as np

from kedge_convert.lowering.stand import Stand
from kedge_convert.toolkit import require


def layer_norm(layer: Any) -> Stand | None:
    """Return a LayerNormalization over the last axis in plain arithmetic, or None.

    Ba et al. 2016, arXiv:1607.06450, as Keras computes it: (x - mean) / sqrt(variance + epsilon).
    """
    if type(layer).__name__ != "LayerNormalization" or not _over_last(layer):
        return None
    ops = require("keras").ops
    # Read here: within a traced function variables have no numbers.
    gamma = np.asarray(layer.gamma) if layer.scale else None
    beta = np.asarray(layer.beta) if layer.center else None

    def norm(value: Any) -> Any:
        centred = value - ops.mean(value, axis=-1, keepdims=True)
        variance = ops.mean(centred * centred, axis=-1, keepdims=True)
        normed = centred * ops.rsqrt(variance + layer.epsilon)
        scaled = normed if gamma is None else normed * gamma
        return scaled if beta is None else scaled + beta

    return Stand(norm)


def _over_last(layer: Any) -> bool:
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return layer.built and axes in ([-1], [layer.input_spec.ndim - 1 if layer.input_spec else -1])
