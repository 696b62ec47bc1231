"""Run a graph's nodes on images: in chunks, in int8's steps, freeing values early."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kedge_convert.prepare.graph import Graph, GraphTensor, Node
from kedge_convert.prepare.steps import ends_of, in_steps, in_steps_between
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

CHUNK = 20  # images run at once: enough to fill the cores, little enough for the caches
PIECE = 4  # of them, passed to the backend at once

SAME_SCALE = frozenset({"Flatten", "Identity", "MaxPooling2D", "Reshape", "ZeroPadding2D"})

# float32; of few images also the backend's own tensors, as passing numpy's on costs two copies.
Values = dict[GraphTensor, Any]


def computed(node: Node, values: Values) -> Any:
    """Return a node's value on images: of up to CHUNK of them as the backend's tensor."""
    few = len(values[node.inputs[0]]) <= CHUNK
    return node.run(values.__getitem__) if few else run(node, values)


def run(node: Node, values: Values) -> Floats:
    """Return a node's value on images, float32 [n, ...], in chunks."""
    taken = [values[tensor] for tensor in node.inputs]
    count = len(taken[0])
    if count <= CHUNK:
        return np.asarray(node.run(values.__getitem__), np.float32)  # no copy, so not writable
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


def quantised(node: Node, value: Floats) -> Any:
    """Return the value as an int8 tensor would hold it (steps.py).

    Of more than CHUNK images in place, where it can be written. Values that keep their input's
    scale are returned as they are.
    """
    if keeps_scale(node):
        return value
    return in_steps(value) if len(value) > CHUNK else held(value, ends_of(value))


def held(value: Floats, ends: tuple[float, float]) -> Any:
    """Return up to CHUNK images in the 256 steps between `ends`, as the backend's tensor.

    Made of pieces: the backend copies an array of numpy's twice.
    """
    ops = require("keras").ops
    pieces = (value[at : at + PIECE] for at in range(0, len(value), PIECE))
    return ops.concatenate([ops.convert_to_tensor(in_steps_between(one, ends)) for one in pieces])


def keeps_scale(node: Node) -> bool:
    """Whether an engine gives a node's output the scale of its input, and rounds nothing."""
    return node.weights is None and type(node.layer).__name__ in SAME_SCALE


def passing(graph: Graph, images: Floats) -> Iterator[tuple[Node, Values]]:
    """Run the graph, yielding each node with the values that live just after it."""
    last = graph.last_uses()
    values = {graph.input: images}
    for i, node in enumerate(graph.nodes):
        values[node.output] = computed(node, values)
        yield node, values
        forget(node, i, last, values)


def forget(node: Node, index: int, last: dict[GraphTensor, int], values: Values) -> None:
    """Drop the values that no node after `index` takes."""
    for tensor in set(node.inputs):
        if last.get(tensor) == index:
            del values[tensor]


def simulate(graph: Graph, images: Floats, *, integer: bool) -> Floats:
    """Return the graph's output; with `integer` every value between is held in 256 steps."""
    return rest(graph, {graph.input: images}, 0, integer=integer)


def rest(graph: Graph, values: Values, start: int, *, integer: bool = False) -> Floats:
    """Return the output, run from node `start` on the values before it; `values` is used up."""
    last = graph.last_uses()
    for i, node in enumerate(graph.nodes[start:], start):
        value = computed(node, values)
        values[node.output] = quantised(node, np.asarray(value)) if integer else value
        forget(node, i, last, values)
    return np.asarray(values[graph.output])


def peak(graph: Graph) -> int:
    """Return the most float32 values that live at once, per image."""
    image = np.zeros((1, *graph.shape), np.float32)
    return max(
        sum(np.size(value) for value in values.values()) for _, values in passing(graph, image)
    )


def sizes(graph: Graph) -> dict[GraphTensor, int]:
    """Return how many numbers each node's output has, per image."""
    image = np.zeros((1, *graph.shape), np.float32)
    nodes = passing(graph, image)
    return {node.output: int(np.size(values[node.output])) for node, values in nodes}


def fold_over(graph: Graph, images: Floats, visit: Callable[[GraphTensor, Floats], None]) -> None:
    """Call `visit` with every tensor's value, a chunk of images at a time."""
    for at in range(0, len(images), CHUNK):
        chunk = images[at : at + CHUNK]
        visit(graph.input, chunk)
        for node, values in passing(graph, chunk):
            visit(node.output, np.asarray(values[node.output]))
