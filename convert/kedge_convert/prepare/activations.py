"""Values between nodes, kept as long as a later node takes them and no longer."""

from collections.abc import Callable, Iterator

import numpy as np

from kedge_convert.prepare.graph import Graph, Node, Tensor
from kedge_runtime.head import Floats

CHUNK = 20  # pictures run at once: enough to fill the cores, little enough for the caches

Values = dict[Tensor, Floats]


def run(node: Node, values: Values) -> Floats:
    """Return a node's value on pictures, float32 [n, ...], in chunks."""
    taken = [values[tensor] for tensor in node.inputs]
    parts = []
    for at in range(0, len(taken[0]), CHUNK):
        chunk = dict(zip(node.inputs, (value[at : at + CHUNK] for value in taken), strict=True))
        parts.append(np.asarray(node.run(chunk.__getitem__), np.float32))
    return np.concatenate(parts)


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
