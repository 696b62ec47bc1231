"""Values between nodes, kept as long as a later node takes them and no longer."""

from collections.abc import Callable, Iterator

import numpy as np

from kedge_convert.prepare.graph import Graph, Node, Tensor
from kedge_runtime.head import Floats

CHUNK = 20  # pictures run at once: enough to fill the cores, little enough for the caches

STEPS = 255
SAME_SCALE = frozenset({"Flatten", "Identity", "MaxPooling2D", "Reshape", "ZeroPadding2D"})

Values = dict[Tensor, Floats]


def run(node: Node, values: Values) -> Floats:
    """Return a node's value on pictures, float32 [n, ...], in chunks."""
    taken = [values[tensor] for tensor in node.inputs]
    count = len(taken[0])
    result: Floats | None = None
    for at in range(0, count, CHUNK):
        chunk = dict(zip(node.inputs, (value[at : at + CHUNK] for value in taken), strict=True))
        part = np.asarray(node.run(chunk.__getitem__), np.float32)
        if result is None:
            # Filled in place: parts and their concatenation would be two copies.
            result = np.empty((count, *part.shape[1:]), np.float32)
        result[at : at + CHUNK] = part
    assert result is not None
    return result


def quantised(node: Node, value: Floats) -> Floats:
    """Return the value as an int8 tensor would hold it: 256 steps from its least to its largest.

    In place. Zero is one of the steps, as padding needs it. Values that keep their input's scale
    are given back as they are.
    """
    if node.weights is None and type(node.layer).__name__ in SAME_SCALE:
        return value
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    step = max(high - low, 1e-12) / STEPS
    zero = np.rint(-low / step)
    value /= np.float32(step)
    np.rint(value, out=value)
    np.clip(value, -zero, STEPS - zero, out=value)
    value *= np.float32(step)
    return value


def passing(graph: Graph, pictures: Floats) -> Iterator[tuple[Node, Values]]:
    """Run the graph, yielding each node with the values that live just after it."""
    last = graph.last_uses()
    values = {graph.input: pictures}
    for i, node in enumerate(graph.nodes):
        values[node.output] = run(node, values)
        yield node, values
        forget(node, i, last, values)


def forget(node: Node, index: int, last: dict[Tensor, int], values: Values) -> None:
    """Drop what no node after `index` takes."""
    for tensor in set(node.inputs):
        if last.get(tensor) == index:
            del values[tensor]


def simulate(graph: Graph, pictures: Floats, *, integer: bool) -> Floats:
    """Return the graph's output; with `integer` every value between is held in 256 steps."""
    return rest(graph, {graph.input: pictures}, 0, integer=integer)


def rest(graph: Graph, values: Values, start: int, *, integer: bool = False) -> Floats:
    """Return the output, run from node `start` on, of what lives before it; `values` is used up."""
    last = graph.last_uses()
    for i, node in enumerate(graph.nodes[start:], start):
        value = run(node, values)
        values[node.output] = quantised(node, value) if integer else value
        forget(node, i, last, values)
    return values[graph.output]


def peak(graph: Graph) -> int:
    """Return the most float32 values that live at once, per picture."""
    picture = np.zeros((1, *graph.shape), np.float32)
    return max(
        sum(value.size for value in values.values()) for _, values in passing(graph, picture)
    )


def fold_over(graph: Graph, pictures: Floats, visit: Callable[[Tensor, Floats], None]) -> None:
    """Call `visit` with every tensor's value, a chunk of pictures at a time."""
    for at in range(0, len(pictures), CHUNK):
        chunk = pictures[at : at + CHUNK]
        visit(graph.input, chunk)
        for node, values in passing(graph, chunk):
            visit(node.output, values[node.output])
