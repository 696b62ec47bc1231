"""How many images the float model runs at once."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Each divides the usual numbers of images (20, 100, 200). Another size costs a trace, which takes
# longer than a few images do without: a smaller rest is filled up, or goes without.
SIZES = (20, 10, 5, 4, 2, 1)
# Bytes of the largest value of a batch; TensorFlow holds several of that size at once. MobileNetV2
# has 98 MB with 20 images, VGG16 would have 257.
MOST = 100e6


def batch_size(model: Any) -> int:
    """Return the size that a model was made for, or else the largest whose values fit into MOST."""
    if fixed := model.inputs[0].shape[0]:
        return int(fixed)
    image = 4 * max(map(_numbers, _values(model)), default=0)
    return next(size for size in SIZES if size == 1 or size * image <= MOST)


def batches(tensors: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Yield tensors of [1, ...] joined to batches of `size`; the last one may be smaller."""
    rest = iter(tensors)
    while batch := list(islice(rest, size)):
        yield np.concatenate(batch)


def _values(model: Any) -> Iterator[Any]:
    """Yield the symbolic outputs of all layers; those that keep none have no say."""
    for layer in model._flatten_layers():
        for node in getattr(layer, "_inbound_nodes", ()):
            yield from node.output_tensors


def _numbers(value: Any) -> int:
    return math.prod(side or 1 for side in value.shape[1:])
