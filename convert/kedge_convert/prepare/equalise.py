"""Channels to one range, so that eight bits are spent on what is there.

An int8 activation has one scale for all channels; a channel that uses a tenth of the range has a
tenth of the steps. Writers multiply a channel by s and readers divide it (Nagel et al. 2019,
arXiv:1906.04721, section 4.1). For depthwise readers that costs nothing, as their kernels are
quantised by channel: every channel gets the full range. Other readers pay with coarser weights on
that channel, so s balances both noises: with the power of the reader's weights on the channel A,
the activation's step d, the weights' steps e and the channel's mean square M,

    noise(s) = A d^2 / (12 s^2) + M s^2 sum(e^2) / 12,    least at s^4 = A d^2 / (M sum(e^2)).

A ReLU6 cuts off at 6 whatever the scale; the ceiling is used as each channel's own clipping point,
where that has the least mean square error at eight bits.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.activations import fold_over
from kedge_convert.prepare.fold import per_output
from kedge_convert.prepare.graph import Graph, Node, Tensor
from kedge_convert.prepare.groups import Group, Shapes, groups
from kedge_runtime.head import Floats

# Second-order rounding takes off most of the weights' noise power: 1, 4, 16 and 64 differ little.
ROUNDING_GAIN = 16.0
LARGEST = 100.0  # a channel that is all but silent on the pictures may not be on others
SAMPLES = 2000  # values per channel and chunk, for the clipping point
STEPS = 255  # of a range

Doubles = NDArray[np.float64]


@dataclass
class Channels:
    """What is known of one tensor's channels, each [channels]; `samples`: some of its values."""

    peak: Doubles
    power: Doubles
    samples: list[Floats] = field(default_factory=list)
    seen: int = 0


def equalise(graph: Graph, pictures: Floats, seed: int) -> Graph:
    """Return the same function with channels scaled to use their tensors' range."""
    channels, shapes = measure(graph, pictures, seed)
    nodes = {node.output: node for node in graph.nodes}
    for group in groups(graph, shapes):
        # Scaling one group changes kernels that another group's balance looks at.
        current = _refreshed(group, nodes)
        scales = _scales(current, channels).astype(np.float32)
        for node in current.writers:
            nodes[node.output] = _times(nodes[node.output], scales)
        for node in current.readers:
            nodes[node.output] = _over(nodes[node.output], scales)
    return graph.with_nodes(list(nodes.values()))


def measure(graph: Graph, pictures: Floats, seed: int) -> tuple[dict[Tensor, Channels], Shapes]:
    """Return every tensor's channel statistics over the pictures, and its shape."""
    rng = np.random.default_rng(seed)
    found: dict[Tensor, Channels] = {}
    shapes: Shapes = {}

    def visit(tensor: Tensor, value: Floats) -> None:
        shapes[tensor] = value.shape
        rows = value.reshape(-1, value.shape[-1])
        zeros = np.zeros(rows.shape[1])
        one = found.setdefault(tensor, Channels(zeros, zeros))
        one.peak = np.maximum(one.peak, np.abs(rows).max(axis=0))
        one.power = one.power + np.square(rows).sum(axis=0, dtype=np.float64)
        one.seen += len(rows)
        one.samples.append(rows[rng.choice(len(rows), min(SAMPLES, len(rows)), replace=False)])

    fold_over(graph, pictures, visit)
    return found, shapes


def clipping_points(samples: Floats) -> Doubles:
    """Return, by channel, where clipping values >= 0 gives the least error at eight bits."""
    peak = samples.max(axis=0).astype(np.float64)
    shares = np.linspace(0.2, 1.0, 33)
    errors = [
        np.square(np.maximum(samples - share * peak, 0)).mean(axis=0)
        + np.square(share * peak / STEPS) / 12
        for share in shares
    ]
    return np.asarray(peak * shares[np.argmin(errors, axis=0)])


def _scales(group: Group, channels: dict[Tensor, Channels]) -> Doubles:
    """Return the factor of each channel, at least 1."""
    room = np.min([_room(group, tensor, channels[tensor]) for tensor in group.tensors], axis=0)
    room = np.clip(room, 1.0, LARGEST)
    if group.free:
        return np.asarray(room)
    noises = [_noises(node, channels) for node in group.readers]
    ours, theirs = (np.sum(terms, axis=0) for terms in zip(*noises, strict=True))
    balance = (ROUNDING_GAIN * ours / np.maximum(theirs, 1e-30)) ** 0.25
    return np.asarray(np.clip(balance, 1.0, room))


def _room(group: Group, tensor: Tensor, found: Channels) -> Doubles:
    """Return how far each channel can grow before it leaves its tensor's range."""
    top = group.ceilings.get(tensor, np.inf)
    peak, limit = found.peak, found.peak.max()
    if np.isfinite(top):
        peak, limit = clipping_points(np.concatenate(found.samples)), top
    return np.where(peak > 0, limit / np.maximum(peak, 1e-9), 1.0)


def _noises(node: Node, channels: dict[Tensor, Channels]) -> tuple[Doubles, Doubles]:
    """Return (A d^2, M sum(e^2)) of one reader, by input channel, less the common 1/12."""
    assert node.weights is not None
    kernel = node.weights.kernel.astype(np.float64)
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    found = channels[node.inputs[0]]
    two_sided = min(map(np.min, found.samples)) < 0
    step = found.peak.max() * (1 + two_sided) / STEPS
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
