"""Write a LeakyReLU as two ReLUs, which a convolution can fuse: relu(x) and relu(-x).

LeakyReLU is relu(x) - slope * relu(-x). An engine rounds x to 256 steps, and LeakyReLU's output
again. As a pair, both parts have all steps for one side, and nothing is rounded twice. Layers that
are linear pass pairs on, channel by channel; a convolution or dense layer reads them by its weights
on x, and by -slope times these.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kedge_convert.prepare.copyable import NetworkWork, Noises
from kedge_convert.prepare.equalise import DisjointTensors, Shapes
from kedge_convert.prepare.graph import Graph, GraphTensor, Node, Weights
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

# Linear in their inputs, channel by channel.
LINEAR = frozenset(
    {"Add", "AveragePooling2D", "GlobalAveragePooling2D", "Identity", "Subtract", "ZeroPadding2D"}
)
READERS = frozenset({"conv", "dense"})
PAIR = "+-"  # behind the name of a layer that writes pairs


@dataclass(eq=False)
class PairGroup:
    """Tensors that are pairs together, as they are added or pass channel by channel.

    `leaky`: the nodes that write them, which have the same slopes.
    """

    tensors: list[GraphTensor] = field(default_factory=list)
    leaky: list[Node] = field(default_factory=list)

    @property
    def slopes(self) -> Floats:
        """The factor of the negative parts, [1] or [channels]."""
        first = slopes(self.leaky[0])
        assert first is not None
        return first


def pair_groups(graph: Graph) -> list[PairGroup]:
    """Return the groups that can be written as pairs, in execution order."""
    writers = {node.output: node for node in graph.nodes}
    uses, union = graph.uses(), DisjointTensors()
    pinned = {graph.input, graph.output}
    for node in graph.nodes:
        pinned.update(_join(node, writers, uses, union))
    found: dict[GraphTensor, PairGroup] = {}
    for node in graph.nodes:
        group = found.setdefault(union.root(node.output), PairGroup())
        group.tensors.append(node.output)
        if slopes(node) is not None:
            group.leaky.append(node)
    fixed = {union.root(tensor) for tensor in pinned}
    groups = [group for root, group in found.items() if root not in fixed and group.leaky]
    return [group for group in groups if _same_slopes(group)]


def slopes(node: Node) -> Floats | None:
    """Return the slope of a LeakyReLU's or PReLU's negative part, [1] or [channels]; or None."""
    layer, name = node.layer, type(node.layer).__name__
    if node.weights is not None:
        return None
    if name == "PReLU":
        own = np.asarray(layer.alpha, np.float32)
        return own.reshape(-1) if own.size == own.shape[-1] else None
    leaky = name == "LeakyReLU" or (name == "ReLU" and not layer.threshold and not layer.max_value)
    slope = float(layer.negative_slope) if leaky else 0.0
    return np.full(1, slope, np.float32) if slope else None


def _join(
    node: Node, writers: dict[GraphTensor, Node], uses: dict[GraphTensor, int], union: Any
) -> Collection[GraphTensor]:
    """Join the tensors that this node keeps in one group; return those that can't be pairs."""
    if node.weights is not None:
        return (node.output, *(() if node.weights.kind in READERS else node.inputs))
    if slopes(node) is not None:
        # The tensor before it is no longer written; the one behind it begins a group.
        source = writers.get(node.inputs[0])
        bare = source is not None and source.weights is not None and source.activation is None
        alone = bare and uses[node.inputs[0]] == 1
        return node.inputs if alone else (*node.inputs, node.output)
    if type(node.layer).__name__ in LINEAR and not node.constants:
        union.join([*node.inputs, node.output])
        return ()
    return (*node.inputs, node.output)


def _same_slopes(group: PairGroup) -> bool:
    found = map(slopes, group.leaky)
    return all(own is not None and np.array_equal(own, group.slopes) for own in found)


def paired(graph: Graph, groups: Collection[PairGroup]) -> Graph:
    """Return the same function with the groups' LeakyReLUs as pairs of ReLUs."""
    by_tensor = {tensor: group for group in groups for tensor in group.tensors}
    leaky = {node.inputs[0]: node for group in groups for node in group.leaky}
    return graph.with_nodes(list(_paired(graph, leaky, by_tensor)))


def _paired(
    graph: Graph, leaky: dict[GraphTensor, Node], groups: dict[GraphTensor, PairGroup]
) -> Iterator[Node]:
    dropped = {node.output for node in leaky.values()}
    for node in graph.nodes:
        if node.output in dropped:
            continue
        if node.weights is not None:
            group = groups.get(node.inputs[0])
            weights = node.weights if group is None else _reading(node.weights, group.slopes)
            node = replace(node, weights=weights)
            if node.output in leaky:
                node = _writing(node, leaky[node.output])
        yield node


def _reading(weights: Weights, slopes: Floats) -> Weights:
    """Return a reader's weights on pairs: each channel's positive part, then its negative one."""
    kernel = weights.kernel
    both = np.stack([kernel, -slopes[:, None] * kernel], axis=-2)
    return replace(weights, kernel=both.reshape(*kernel.shape[:-2], -1, kernel.shape[-1]))


def _writing(node: Node, leaky: Node) -> Node:
    """Return a writer of pairs, in the place of its LeakyReLU."""
    weights = node.weights
    assert weights is not None
    kernel, bias = (_both_signs(each) for each in (weights.kernel, weights.bias))
    relu = require("keras").layers.ReLU(name=leaky.layer.name)
    weights = replace(weights, kernel=kernel, bias=bias)
    return replace(node, weights=weights, activation=relu, output=leaky.output)


def _both_signs(values: Floats) -> Floats:
    """Return each output's weights and their opposite, [..., 2 * outputs]."""
    return np.stack([values, -values], axis=-1).reshape(*values.shape[:-1], -1)


# Of the power of a rounding error before a LeakyReLU: a pair has all steps for each side.
GAINED = 0.75


@dataclass(frozen=True)
class PairPlan:
    """Groups to write as pairs. `ratio`: the network's work to that without."""

    groups: tuple[PairGroup, ...] = ()
    ratio: float = 1.0


def pair_plan(graph: Graph, shapes: Shapes, noises: Noises, most: float) -> PairPlan:
    """Return the groups that take off most noise for the work they add, up to `most` times it.

    `noises`: mean squared error of the network's output by each tensor, 0 where it has none.
    """
    plan, plain, groups = PairPlan(), NetworkWork(graph, shapes).of({}), pair_groups(graph)
    while True:
        found = []
        for group in (each for each in groups if each not in plan.groups):
            wider = (*plan.groups, group)
            ratio = NetworkWork(paired(graph, wider), paired_shapes(shapes, wider)).of({}) / plain
            gain = _gain(group, noises)
            if gain > 0 and ratio <= most:
                found.append((gain / max(ratio - plan.ratio, 1e-9), PairPlan(wider, ratio)))
        if not found:
            return plan
        plan = max(found, key=lambda pair: pair[0])[1]


def paired_shapes(shapes: Shapes, groups: Collection[PairGroup]) -> Shapes:
    """Return the tensors' shapes in the graph with the groups as pairs."""
    wider = {tensor for group in groups for tensor in group.tensors}
    return {
        tensor: (*shape[:-1], 2 * shape[-1]) if tensor in wider else shape
        for tensor, shape in shapes.items()
    }


def _gain(group: PairGroup, noises: Noises) -> float:
    """Return the noise that a pair takes off: before each LeakyReLU most of it, behind it all."""
    return sum(
        GAINED * noises.get(node.inputs[0], 0.0) + noises.get(node.output, 0.0)
        for node in group.leaky
    )
