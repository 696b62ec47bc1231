"""Images of random numbers, in the range that a model was built for."""

from typing import Any

import numpy as np

from kedge_convert.sources.shapes import normalises
from kedge_runtime.head import Floats

# Where a model takes any size: large enough for every application of Keras.
_SIDE = 128


def noise(model: Any, images: int) -> Floats:
    """Return float32 [n, h, w, c]: bytes where the model normalises them itself, else -1..1.

    n: `images`, or as many as the model takes at once.
    """
    count, *shape = model.inputs[0].shape
    size, rng = (count or images, *(side or _SIDE for side in shape)), np.random.default_rng(0)
    of_bytes = len(shape) == 3 and normalises(model)
    numbers = rng.integers(0, 256, size) if of_bytes else rng.uniform(-1, 1, size)
    return numbers.astype(np.float32)
