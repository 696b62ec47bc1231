"""Images of random numbers, in the range that a model was built for."""

from typing import Any

import numpy as np

from kedge_convert.sources.shapes import normalises
from kedge_runtime.head import Floats

# Where a model takes any size: large enough for every application of Keras.
_SIDE = 128


def noise(model: Any, images: int) -> Floats:
    """Return float32 [n, h, w, c]: 0..255 where the model normalises bytes itself, else -1..1.

    n: `images`, or as many as the model takes at once.
    """
    count, *shape = model.inputs[0].shape
    low, high = (0, 255) if len(shape) == 3 and normalises(model) else (-1, 1)
    sides = [side or _SIDE for side in shape]
    numbers = np.random.default_rng(0).uniform(low, high, (count or images, *sides))
    return numbers.astype(np.float32)
