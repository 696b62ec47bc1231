"""Channels to one range, so that eight bits are spent on what is there.

An int8 activation has one scale for all channels; a channel that uses a tenth of the range has a
tenth of the steps. Writers multiply a channel by s and readers divide it (Nagel et al. 2019,
arXiv:1906.04721, section 4.1). For depthwise readers that costs nothing, as their kernels are
quantised by channel: every channel gets the full range. Other readers pay with coarser weights on
that channel, so s balances both noises: with the power of the reader's weights on the channel A,
the activation's step d, the weights' steps e and the channel's mean square M,

    noise(s) = A d^2 / (12 s^2) + M s^2 sum(e^2) / 12,    least at s^4 = A d^2 / (M sum(e^2)).

A ReLU6 cuts off at 6 whatever the scale: a channel that is scaled up to its peak on the pictures is
cut where another picture goes beyond. How far to go, `reach`, from 0 (not at all) to 1 (the peak),
differs by model and is measured: it takes .7 dB off MobileNet 0.25's noise and adds 2 to 6 dB to
MobileNetV2's (benchmarks/equalisation_reach.py).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.activations import fold_over, simulate
from kedge_convert.prepare.fold import per_output
from kedge_convert.prepare.graph import Graph, Node, Tensor
from kedge_convert.prepare.groups import Group, Shapes, groups
from kedge_runtime.head import Floats
from kedge_runtime.metrics import sqnr

# Second-order rounding takes off most of the weights' noise power: 1, 4, 16 and 64 differ little.
ROUNDING_GAIN = 16.0
LARGEST = 100.0  # a channel that is all but silent on the pictures may not be on others
SILENT = 1e-6  # of the tensor's peak
STEPS = 255  # of a range
REACHES = (0.0, 0.5, 1.0)

Doubles = NDArray[np.float64]


@dataclass
class Channels:
    """What is known of one tensor's channels: peak and power, [channels], and its least value."""

    peak: Doubles
    power: Doubles
    least: float = 0.0
    seen: int = 0


def equalise(graph: Graph, fitting: Floats, judging: Floats) -> Graph:
    """Return the same function with channels scaled to use their tensors' range.

    Ranges are taken from the `fitting` pictures, float32 [n, h, w, 3]; the reach with the least
    noise on the `judging` ones, which set no range, is kept; none, when that has less. Beyond 1 it
    is worse (measured).
    """
    channels, shapes = measure(graph, fitting)
    wanted = simulate(graph, judging, integer=False)
    best, highest = graph, -np.inf
    for reach in REACHES:
        each = scaled(graph, channels, shapes, reach)
        ratio = sqnr(wanted, simulate(each, judging, integer=True))
        if ratio <= highest:
            break
        best, highest = each, ratio
    return best if highest >= sqnr(wanted, simulate(graph, judging, integer=True)) else graph


def measure(graph: Graph, pictures: Floats) -> tuple[dict[Tensor, Channels], Shapes]:
    """Return every tensor's channel statistics over the pictures, and its shape."""
    found: dict[Tensor, Channels] = {}
    shapes: Shapes = {}

    def visit(tensor: Tensor, value: Floats) -> None:
        shapes[tensor] = value.shape
        rows = value.reshape(-1, value.shape[-1])
        zeros = np.zeros(rows.shape[1])
        one = found.setdefault(tensor, Channels(zeros, zeros))
        low = rows.min(axis=0)
        one.peak = np.maximum(one.peak, np.maximum(rows.max(axis=0), -low))
        one.least = min(one.least, float(low.min()))
        one.power = one.power + np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        one.seen += len(rows)

    fold_over(graph, pictures, visit)
    return found, shapes


def scaled(graph: Graph, channels: dict[Tensor, Channels], shapes: Shapes, reach: float) -> Graph:
    """Return the graph with every group's channels scaled, those below a ReLU6 by `reach`."""
    nodes = {node.output: node for node in graph.nodes}
    for group in groups(graph, shapes):
        # Scaling one group changes kernels that another group's balance looks at.
        current = _refreshed(group, nodes)
        scales = _scales(current, channels, reach).astype(np.float32)
        for node in current.writers:
            nodes[node.output] = _times(nodes[node.output], scales)
        for node in current.readers:
            nodes[node.output] = _over(nodes[node.output], scales)
    return graph.with_nodes(list(nodes.values()))


def _scales(group: Group, channels: dict[Tensor, Channels], reach: float) -> Doubles:
    """Return the factor of each channel, at least 1."""
    rooms = [_room(group, tensor, channels[tensor], reach) for tensor in group.tensors]
    room = np.clip(np.min(rooms, axis=0), 1.0, LARGEST)
    if group.free:
        return np.asarray(room)
    noises = [_noises(node, channels) for node in group.readers]
    ours, theirs = (np.sum(terms, axis=0) for terms in zip(*noises, strict=True))
    balance = (ROUNDING_GAIN * ours / np.maximum(theirs, 1e-30)) ** 0.25
    return np.asarray(np.clip(balance, 1.0, room))


def _room(group: Group, tensor: Tensor, found: Channels, reach: float) -> Doubles:
    """Return how far each channel can grow before it leaves its tensor's range."""
    top = group.ceilings.get(tensor, np.inf)
    cut = bool(np.isfinite(top))
    peak = np.maximum(found.peak, 1e-30)
    room = np.where(peak > SILENT * peak.max(), (top if cut else peak.max()) / peak, 1.0)
    return np.asarray(room**reach if cut else room)


def _noises(node: Node, channels: dict[Tensor, Channels]) -> tuple[Doubles, Doubles]:
    """Return (A d^2, M sum(e^2)) of one reader, by input channel, less the common 1/12."""
    assert node.weights is not None
    kernel = node.weights.kernel.astype(np.float64)
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    found = channels[node.inputs[0]]
    step = (found.peak.max() - found.least) / STEPS
    weight_steps = np.abs(taps).max(axis=(0, 1)) / 127
    theirs = found.power / found.seen * np.square(weight_steps).sum() * len(taps)
    return np.square(taps).sum(axis=(0, 2)) * step**2, theirs


def _refreshed(group: Group, nodes: dict[Tensor, Node]) -> Group:
    def newest(old: list[Node]) -> list[Node]:
        return [nodes[node.output] for node in old]

    return replace(group, writers=newest(group.writers), readers=newest(group.readers))


def _times(node: Node, scales: Floats) -> Node:
    assert node.weights is not None
    kernel = node.weights.kernel * per_output(node.weights, scales)
    return replace(
        node, weights=replace(node.weights, kernel=kernel, bias=node.weights.bias * scales)
    )


def _over(node: Node, scales: Floats) -> Node:
    assert node.weights is not None
    kernel = node.weights.kernel / scales[:, None]
    return replace(node, weights=replace(node.weights, kernel=kernel))
