"""Preparation: float weights adjusted so that int8 keeps the answers. Still a Keras model.

The adjusted weights lie on the quantiser's grid, so that it finds the same integers. TFLite's and
ONNX's grids are the same, unless a device asks for another. Activations are not touched: they are
quantised by the format's own tools.
"""

from typing import Any

from kedge_convert.prepare.equalise import equalise
from kedge_convert.prepare.fold import fold
from kedge_convert.prepare.graph import Graph, trace
from kedge_convert.prepare.sequential import Grids, Rounding, round_weights
from kedge_runtime.head import Floats

__all__ = [
    "Graph",
    "Grids",
    "Rounding",
    "levelled",
    "plan",
    "round_weights",
    "treatable",
]

LARGEST_JURY = 32


def plan(model: Any) -> Graph:
    """Return the model's graph with its batch norms folded."""
    return fold(trace(model))


def treatable(model: Any) -> bool:
    """Whether there are layers whose weights can be adjusted; a frozen graph has none."""
    return any(node.weights is not None for node in plan(model).nodes)


def levelled(graph: Graph, pictures: Floats) -> Graph:
    """Return the same function with its channels equalised (equalise.py), weights still exact.

    `pictures`: float32 [n, h, w, 3], preprocessed, about 200 of the kind the model will see.
    """
    judging = max(1, min(len(pictures) // 5, LARGEST_JURY))
    return equalise(graph, pictures[judging:], pictures[:judging])
