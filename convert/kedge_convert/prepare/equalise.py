"""Equalise channels to one range, within the groups of tensors that must share a scale."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kedge_convert.prepare.fold import ceiling, per_output
from kedge_convert.prepare.graph import Graph, GraphTensor, Node
from kedge_convert.prepare.running import fold_over, simulate
from kedge_convert.prepare.shared import calls
from kedge_runtime.arrays import Doubles, Floats
from kedge_runtime.drift.statistics import sqnr

PASSING = frozenset(
    {
        *("ZeroPadding2D", "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"),
        *("GlobalMaxPooling2D", "Identity", "Reshape", "Flatten", "Add", "Subtract", "Maximum"),
    }
)

Shapes = dict[GraphTensor, tuple[int, ...]]


@dataclass
class ScaleGroup:
    """Tensors with one scale per channel. `ceilings`: where a ReLU cuts off, by tensor."""

    tensors: list[GraphTensor] = field(default_factory=list)
    writers: list[Node] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)
    ceilings: dict[GraphTensor, float] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Whether every reader can absorb any scale: a depthwise kernel is quantised by channel."""
        return all(kind(reader) == "depthwise" for reader in self.readers)


def groups(graph: Graph, shapes: Shapes) -> list[ScaleGroup]:
    """Return the groups that can be scaled. `shapes`: of every tensor."""
    union = DisjointTensors()
    pinned = {graph.input, graph.output}
    for node in graph.nodes:
        pinned.update(_join(node, shapes, union))
    for same in calls(graph.nodes):
        # One kernel has one factor for each of its inputs and outputs, whatever the call.
        union.join([node.inputs[0] for node in same])
        union.join([node.output for node in same])
    found: dict[GraphTensor, ScaleGroup] = {}
    for tensor in shapes:
        found.setdefault(union.root(tensor), ScaleGroup()).tensors.append(tensor)
    for node in graph.nodes:
        _enter(node, found, union)
    fixed = {union.root(tensor) for tensor in pinned}
    return [g for root, g in found.items() if root not in fixed and g.writers and g.readers]


def kind(node: Node) -> str:
    """Return a weighted node's kind, or the empty string."""
    return node.weights.kind if node.weights else ""


# Functions with f(a x) = a f(x) for a > 0, whatever the channel: a scale passes through them.
HOMOGENEOUS = frozenset({"relu", "leaky_relu", "linear"})


def homogeneous(layer: Any) -> bool:
    """Whether a positive factor passes through a layer that is an activation by itself."""
    name = type(layer).__name__
    if name == "ReLU":
        return layer.threshold == 0 and layer.max_value is None
    if name == "Activation":
        return getattr(layer.activation, "__name__", "") in HOMOGENEOUS
    return name in ("LeakyReLU", "LeakyRelu", "PReLU", "Relu")


def _join(node: Node, shapes: Shapes, union: "DisjointTensors") -> Iterable[GraphTensor]:
    """Join the tensors that share a scale by this node; return those that it pins to none."""
    if node.weights is not None:
        scalable = ceiling(node.activation) is not None and _one_to_one(node)
        return (
            () if scalable else (node.output,) if _one_to_one(node) else (*node.inputs, node.output)
        )
    tensors = [*node.inputs, node.output]
    name = type(node.layer).__name__
    if node.constants:
        return tensors
    if name == "Multiply" and len(node.inputs) == 2:
        return _join_gate(node, shapes, union)
    if (name in PASSING or homogeneous(node.layer)) and len(
        {shapes[tensor][-1] for tensor in tensors}
    ) == 1:
        union.join(tensors)
        return ()
    return tensors


def _join_gate(node: Node, shapes: Shapes, union: "DisjointTensors") -> Iterable[GraphTensor]:
    """A squeeze-and-excite gate multiplies an image, whose scale passes; the gate is pinned."""

    def area(tensor: GraphTensor) -> int:
        size = 1
        for length in shapes[tensor][1:-1]:
            size *= length
        return size

    gate, image = sorted(node.inputs, key=area)
    if area(gate) != 1 or gate == image or shapes[gate][-1] != shapes[image][-1]:
        return (*node.inputs, node.output)
    union.join([image, node.output])
    return (gate,)


def _one_to_one(node: Node) -> bool:
    """Whether output channels and, for depthwise kernels, input channels stand for themselves.

    Those of a grouped kernel do, too, but no factor passes through it yet.
    """
    assert node.weights is not None
    if node.weights.kind == "grouped":
        return False
    return node.weights.kind != "depthwise" or node.weights.kernel.shape[3] == 1


def _enter(node: Node, found: dict[GraphTensor, ScaleGroup], union: "DisjointTensors") -> None:
    if node.weights is None:
        return
    found[union.root(node.inputs[0])].readers.append(node)
    group = found[union.root(node.output)]
    group.writers.append(node)
    group.ceilings[node.output] = ceiling(node.activation) or float("inf")


class DisjointTensors:
    """Disjoint sets of tensors."""

    def __init__(self) -> None:
        """Begin with each tensor in a set of its own."""
        self._parents: dict[GraphTensor, GraphTensor] = {}

    def root(self, tensor: GraphTensor) -> GraphTensor:
        """Return the tensor that stands for a tensor's set."""
        while (parent := self._parents.get(tensor, tensor)) != tensor:
            tensor = parent
        return tensor

    def join(self, tensors: list[GraphTensor]) -> None:
        """Make one set of the sets of several tensors."""
        first = self.root(tensors[0])
        for tensor in tensors[1:]:
            self._parents[self.root(tensor)] = first


# Second-order rounding takes off most of the weights' noise power: 1, 4, 16 and 64 differ little.
ROUNDING_GAIN = 16.0
LARGEST = 100.0  # a channel that is all but silent on the images may not be on others
SILENT = 1e-6  # of the tensor's peak
STEPS = 255  # of a range
STRENGTHS = (0.0, 0.5, 1.0)


@dataclass
class Channels:
    """Statistics of one tensor's channels: peak and power, [channels], and its least value."""

    peak: Doubles
    power: Doubles
    least: float = 0.0
    seen: int = 0


def equalise(graph: Graph, measuring: Floats, judging: Floats) -> Graph:
    """Return the same function with channels scaled to use their tensors' range.

    Ranges are taken from the `measuring` images, float32 [n, h, w, 3]. The equalisation strength
    with the least noise on the `judging` images, which set no range, is used, or none if that has
    less noise. Strengths beyond 1 measured worse.
    """
    channels, shapes = measure(graph, measuring)
    wanted = simulate(graph, judging, integer=False)
    best, highest = graph, -np.inf
    for strength in STRENGTHS:
        each = scaled(graph, channels, shapes, strength)
        ratio = sqnr(wanted, simulate(each, judging, integer=True))
        if ratio <= highest:
            break
        best, highest = each, ratio
    return best if highest >= sqnr(wanted, simulate(graph, judging, integer=True)) else graph


def measure(graph: Graph, images: Floats) -> tuple[dict[GraphTensor, Channels], Shapes]:
    """Return every tensor's channel statistics over the images, and its shape."""
    found: dict[GraphTensor, Channels] = {}
    shapes: Shapes = {}

    def visit(tensor: GraphTensor, value: Floats) -> None:
        shapes[tensor] = value.shape
        rows = value.reshape(-1, value.shape[-1])
        zeros = np.zeros(rows.shape[1])
        one = found.setdefault(tensor, Channels(zeros, zeros))
        peaks, low = rows.max(axis=0), float(rows.min())
        if low < 0:  # after most activations nothing is
            peaks = np.maximum(peaks, -rows.min(axis=0))
        one.peak = np.maximum(one.peak, peaks)
        one.least = min(one.least, low)
        one.power = one.power + np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        one.seen += len(rows)

    fold_over(graph, images, visit)
    return found, shapes


def scaled(
    graph: Graph, channels: dict[GraphTensor, Channels], shapes: Shapes, strength: float
) -> Graph:
    """Return the graph with every group's channels scaled, those below a ReLU6 by `strength`."""
    nodes = {node.output: node for node in graph.nodes}
    for group in groups(graph, shapes):
        # Scaling one group changes kernels that another group's balance looks at.
        current = refreshed(group, nodes)
        scales = _scales(current, channels, strength).astype(np.float32)
        for node in current.writers:
            nodes[node.output] = times(nodes[node.output], scales)
        for node in current.readers:
            nodes[node.output] = over(nodes[node.output], scales)
    return graph.with_nodes(list(nodes.values()))


def _scales(group: ScaleGroup, channels: dict[GraphTensor, Channels], strength: float) -> Doubles:
    """Return the factor of each channel, at least 1."""
    rooms = [_room(group, tensor, channels[tensor], strength) for tensor in group.tensors]
    room = np.clip(np.min(rooms, axis=0), 1.0, LARGEST)
    if group.free:
        return np.asarray(room)
    noises = [_noises(node, channels) for node in group.readers]
    ours, theirs = (np.sum(terms, axis=0) for terms in zip(*noises, strict=True))
    balance = (ROUNDING_GAIN * ours / np.maximum(theirs, 1e-30)) ** 0.25
    return np.asarray(np.clip(balance, 1.0, room))


def _room(group: ScaleGroup, tensor: GraphTensor, found: Channels, strength: float) -> Doubles:
    """Return how far each channel can grow before it leaves its tensor's range."""
    top = group.ceilings.get(tensor, np.inf)
    cut = bool(np.isfinite(top))
    peak = np.maximum(found.peak, 1e-30)
    room = np.where(peak > SILENT * peak.max(), (top if cut else peak.max()) / peak, 1.0)
    return np.asarray(room**strength if cut else room)


def _noises(node: Node, channels: dict[GraphTensor, Channels]) -> tuple[Doubles, Doubles]:
    """Return (A d^2, M sum(e^2)) of one reader, by input channel, less the common 1/12."""
    assert node.weights is not None
    kernel = node.weights.kernel.astype(np.float64)
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    found = channels[node.inputs[0]]
    step = (found.peak.max() - found.least) / STEPS
    weight_steps = np.abs(taps).max(axis=(0, 1)) / 127
    theirs = found.power / found.seen * np.square(weight_steps).sum() * len(taps)
    return np.square(taps).sum(axis=(0, 2)) * step**2, theirs


def refreshed(group: ScaleGroup, nodes: dict[GraphTensor, Node]) -> ScaleGroup:
    """Return a group with the nodes as they are now."""

    def newest(old: list[Node]) -> list[Node]:
        return [nodes[node.output] for node in old]

    return replace(group, writers=newest(group.writers), readers=newest(group.readers))


def times(node: Node, scales: Floats) -> Node:
    """Return a writer whose output channels are multiplied."""
    assert node.weights is not None
    kernel = node.weights.kernel * per_output(node.weights, scales)
    return replace(
        node, weights=replace(node.weights, kernel=kernel, bias=node.weights.bias * scales)
    )


def over(node: Node, scales: Floats) -> Node:
    """Return a reader whose input channels are divided."""
    assert node.weights is not None
    kernel = node.weights.kernel / scales[:, None]
    return replace(node, weights=replace(node.weights, kernel=kernel))
