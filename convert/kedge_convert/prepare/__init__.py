"""Preparation: float weights adjusted so that int8 keeps the answers. Still a Keras model.

The adjusted weights lie on the quantiser's grid, so that it finds the same integers. TFLite's and
ONNX's grids are the same, unless a device asks for another. Activations are not touched: they are
quantised by the format's own tools.
"""

from collections.abc import Callable
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
    "left_alone",
    "levelled",
    "plan",
    "prepare",
    "round_weights",
    "treatable",
]

LARGEST_JURY = 32


def plan(model: Any) -> Graph:
    """Return the model's graph with its batch norms folded; its nodes are what `prepare` walks."""
    return fold(trace(model))


def treatable(model: Any) -> bool:
    """Whether there are layers whose weights can be adjusted; a frozen graph has none."""
    return any(node.weights is not None for node in plan(model).nodes)


def prepare(
    graph: Graph, pictures: Floats, seed: int = 0, tick: Callable[[], None] = lambda: None
) -> Any:
    """Return the prepared Keras model.

    `pictures`: float32 [n, h, w, 3], preprocessed, about 200 of the kind the model will see. `tick`
    is called once per node of the graph.
    """
    return round_weights(levelled(graph, pictures), pictures, Rounding(seed), tick).build()


def levelled(graph: Graph, pictures: Floats) -> Graph:
    """Return the same function with its channels equalised (equalise.py), weights still exact."""
    judging = max(1, min(len(pictures) // 5, LARGEST_JURY))
    return equalise(graph, pictures[judging:], pictures[:judging])


def left_alone(graph: Graph) -> list[str]:
    """Return the names of layers with kernels that preparation doesn't treat."""
    names = (
        node.layer.name
        for node in graph.nodes
        if node.weights is None
        and any(len(w.shape) > 1 for w in getattr(node.layer, "weights", ()))
    )
    return list(dict.fromkeys(names))
