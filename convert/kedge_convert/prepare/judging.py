"""Judge rounded layers by the error of their outputs on images that nothing was fitted to."""

import numpy as np

from kedge_convert.prepare import rounding as windows
from kedge_convert.prepare.graph import Node
from kedge_runtime.arrays import Floats

SHARE = 8  # one of so many images judges
LEAST = 4  # fewer say little of others


def judges(count: int) -> int:
    """Return how many of `count` images judge, none where they were too few."""
    return count // SHARE if count >= LEAST * SHARE else 0


def output_error(node: Node, rounded: Node, pair: tuple[Floats, Floats]) -> float:
    """Return the mean squared error of a rounded node's outputs.

    `pair`: the layer's windows in the float network, and in the rounded one.
    """
    floats, theirs = pair
    return float(np.square(outputs(rounded, theirs) - outputs(node, floats)).mean())


def outputs(node: Node, rows: Floats) -> Floats:
    """Return a weighted node's outputs, [samples, outputs], for its windows as rows."""
    assert node.weights is not None
    products = np.matmul(rows, windows.flatten(node.weights))
    if products.ndim > 2:
        products = products.transpose(1, 0, 2).reshape(products.shape[1], -1)
    values = products + node.weights.bias
    return np.asarray(values if node.activation is None else node.activation(values))
