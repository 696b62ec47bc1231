"""Kernels that several operators have: those of a layer that is called more than once.

TFLite stores such a kernel once, and a bias for each call, as its step is that of the call's input.
So the calls keep one kernel, and each has a bias of its own.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from hashlib import sha256

import numpy as np

from kedge_convert.prepare.batches import Batched, Batches
from kedge_convert.prepare.graph import Graph, GraphTensor, Node
from kedge_convert.prepare.running import fold_over, sizes
from kedge_runtime.arrays import Floats

Calls = tuple[Node, ...]


def calls(nodes: Iterable[Node]) -> list[Calls]:
    """Return the weighted nodes of each kernel that several have, in execution order."""
    weighted = [(node, node.weights) for node in nodes if node.weights is not None]
    # Large kernels seldom have a twin of their shape: then they aren't read.
    shapes = Counter(weights.kernel.shape for _, weights in weighted)
    found: dict[object, list[Node]] = {}
    for node, weights in weighted:
        if shapes[weights.kernel.shape] > 1:
            mark = sha256(np.ascontiguousarray(weights.kernel).data).digest()
            key = (weights.kind, weights.groups, weights.kernel.shape, mark)
            found.setdefault(key, []).append(node)
    return [tuple(group) for group in found.values() if len(group) > 1]


def inputs_of(groups: Iterable[Calls]) -> frozenset[GraphTensor]:
    """Return what the further calls of each kernel read."""
    return frozenset(node.inputs[0] for _, *others in groups for node in others)


def kept(graph: Graph, images: Floats, tensors: Collection[GraphTensor]) -> Batched:
    """Return the values of some tensors on images."""
    parts: dict[GraphTensor, list[Floats]] = {tensor: [] for tensor in tensors}

    def visit(tensor: GraphTensor, value: Floats) -> None:
        if tensor in parts:
            parts[tensor].append(value)

    if parts:
        fold_over(graph, images, visit)
    return {tensor: Batches(values) for tensor, values in parts.items()}


def size(graph: Graph, tensors: Collection[GraphTensor]) -> int:
    """Return how many numbers some tensors have together, per image."""
    if not tensors:
        return 0
    found = sizes(graph)
    return sum(found.get(tensor, 0) for tensor in tensors)
