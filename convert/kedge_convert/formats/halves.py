"""Which weights are stored as float16, the same ones in both formats.

Kernels of convolutions and dense layers: nearly all of a file, and each output is a sum of many
products, over which roundings average out. A depthwise output is a sum of nine; its kernels are 2 %
of MobileNetV2's weights and made five sixths of the error (6.2e-3 of 7.7e-3 of the largest logit),
biases a third. Those stay float32.
"""

import numpy as np
from numpy.typing import NDArray

# IEEE 754 binary16: rounding moves a normal number by at most this share.
ROUNDING = 2.0**-11


def half(kernel: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """Return a kernel as float16, or None where its numbers are too large or too small for it."""
    with np.errstate(over="ignore"):
        rounded = kernel.astype(np.float16)
    moved = np.linalg.norm((rounded.astype(np.float64) - kernel).ravel())
    # Written so that an infinity fails.
    return rounded if moved <= ROUNDING * np.linalg.norm(kernel.ravel()) else None
