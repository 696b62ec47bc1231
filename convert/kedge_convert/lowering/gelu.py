"""The exact GELU with erf: Keras computes it with erfc, which ONNX hasn't.

Hendrycks & Gimpel 2016, arXiv:1606.08415.
"""

import math
from typing import Any

from kedge_convert.lowering.activations import with_activation
from kedge_convert.lowering.stand import Stand
from kedge_convert.toolkit import require


def gelu(layer: Any) -> Stand | None:
    """Return a layer whose activation is the exact GELU as the linear layer and that, or None."""
    if type(layer).__name__ == "Gelu" and not layer.approximate:
        return Stand(_gelu)
    return with_activation(layer, {"gelu": _gelu})


def _gelu(value: Any) -> Any:
    ops = require("keras").ops
    return value * 0.5 * (ops.erf(value * math.sqrt(0.5)) + 1.0)
