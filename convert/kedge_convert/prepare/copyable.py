"""Find the tensors whose channels can be copied, and how much work the copies are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kedge_convert.prepare.copies import CHANNELWISE
from kedge_convert.prepare.equalise import DisjointTensors, Shapes
from kedge_convert.prepare.graph import Graph, GraphTensor, Node

# Multiplications that take as long as a byte to move (docs/quantisation.md).
A_BYTE = 8


@dataclass
class CopyGroup:
    """Tensors whose channels are copied together, as they are added or pass channel by channel.

    `writers`: the outputs of the convolutions and dense layers among them.
    """

    tensors: list[GraphTensor] = field(default_factory=list)
    writers: list[GraphTensor] = field(default_factory=list)


def copy_groups(graph: Graph) -> list[CopyGroup]:
    """Return the groups that can be copied, in execution order."""
    union, pinned = DisjointTensors(), {graph.input, graph.output}
    for node in graph.nodes:
        if passes(node):
            union.join([*node.inputs, node.output])
        elif node.weights is None or node.weights.kind == "grouped":
            pinned.update((*node.inputs, node.output))
    found: dict[GraphTensor, CopyGroup] = {}
    for node in graph.nodes:
        group = found.setdefault(union.root(node.output), CopyGroup())
        group.tensors.append(node.output)
        if node.weights is not None and not passes(node):
            group.writers.append(node.output)
    fixed = {union.root(tensor) for tensor in pinned}
    return [group for root, group in found.items() if root not in fixed and group.writers]


def passes(node: Node) -> bool:
    """Whether a node computes each channel from the same channel of its inputs."""
    if node.weights is not None:
        return node.weights.kind == "depthwise"
    return type(node.layer).__name__ in CHANNELWISE and not node.constants


Copies = Mapping[GraphTensor, int]


@dataclass(frozen=True)
class NetworkWork:
    """The work of one run, as multiplications: of the kernels, and A_BYTE for each byte moved."""

    graph: Graph
    shapes: Shapes

    def of(self, copies: Copies) -> float:
        """Return the work with so many copies of each tensor's channels, 1 where it has none."""
        return float(sum(self._node(node, copies) for node in self.graph.nodes))

    def _node(self, node: Node, copies: Copies) -> int:
        moved = sum(self._size(each) * copies.get(each, 1) for each in (*node.inputs, node.output))
        if node.weights is None:
            return A_BYTE * moved
        kernel = node.weights.kernel.size * self._times(node, copies)
        at = node.inputs[0] if node.weights.kind == "transposed" else node.output
        positions = self._size(at) // self.shapes[at][-1]
        return kernel * positions + A_BYTE * (moved + kernel)

    def _times(self, node: Node, copies: Copies) -> int:
        """Return how many times a kernel is written."""
        written = copies.get(node.output, 1)
        return written if passes(node) else written * copies.get(node.inputs[0], 1)

    def _size(self, tensor: GraphTensor) -> int:
        size = 1
        for length in self.shapes[tensor][1:]:
            size *= length
        return size


Noises = Mapping[GraphTensor, float]
MOST = 4  # copies


@dataclass(frozen=True)
class CopyPlan:
    """Copies of tensors' channels. `ratio`: the network's work to that without copies."""

    copies: dict[GraphTensor, int]
    ratio: float


def plans(graph: Graph, shapes: Shapes, noises: Noises, most: float) -> Iterator[CopyPlan]:
    """Yield plans, each with one more group's copies doubled, up to `most` times the work.

    Each doubling takes off the most noise for the work that it adds. `noises`: mean squared error
    of the network's output by each tensor, 0 where it has none.
    """
    groups, work = copy_groups(graph), NetworkWork(graph, shapes)
    plan, plain = CopyPlan({}, 1.0), work.of({})
    while True:
        found = []
        for group in groups:
            copies = _doubled(group, plan.copies)
            wider = CopyPlan(copies, work.of(copies) / plain)
            gain = _gain(group, plan.copies, noises)
            if gain > 0 and wider.ratio <= most and copies[group.tensors[0]] <= MOST:
                found.append((gain / max(wider.ratio - plan.ratio, 1e-9), wider))
        if not found:
            return
        plan = max(found, key=lambda pair: pair[0])[1]
        yield plan


def _doubled(group: CopyGroup, copies: Copies) -> dict[GraphTensor, int]:
    return {**copies, **{tensor: 2 * copies.get(tensor, 1) for tensor in group.tensors}}


def _gain(group: CopyGroup, copies: Copies, noises: Noises) -> float:
    """Return the noise that twice the copies take off.

    A convolution's copies round one value a part of a step apart: n have 1/n^2 of the noise. Those
    of other layers come from other inputs each, and round independently: 1/n.
    """
    writers, total = set(group.writers), 0.0
    for tensor in group.tensors:
        count, power = copies.get(tensor, 1), 2 if tensor in writers else 1
        total += noises.get(tensor, 0.0) * (count**-power - (2 * count) ** -power)
    return total
