"""Equalise channels where all weights of a layer have one step (per tensor).

Then a channel with small weights loses its precision to one with large weights. A positive factor
moves from a channel's writers to its readers and makes up for it (Nagel et al. 2019,
arXiv:1906.04721, section 4.1). Here the factors have the least expected noise, of weights and of
activations: cross-layer equalisation alone levels the weights at the activations' cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kedge_convert.prepare import rounding as windows
from kedge_convert.prepare.equalise import (
    LARGEST,
    ROUNDING_GAIN,
    SILENT,
    STEPS,
    Channels,
    ScaleGroup,
    groups,
    measure,
    over,
    refreshed,
    times,
)
from kedge_convert.prepare.graph import Graph, GraphTensor, Node
from kedge_convert.prepare.rounding import LEVELS, Grid, plain
from kedge_convert.prepare.running import simulate
from kedge_runtime.arrays import Doubles, Floats
from kedge_runtime.drift.statistics import sqnr

SWEEPS = 3  # over all groups: one group's factors change what the next one's weigh
ROUNDS = 24  # of a group's factors, each half of the way to what the last steps call for
GRID = Grid(shared=True)


@dataclass(frozen=True)
class Side:
    """A writer or a reader by the group's channels: its largest weight, [channels].

    `noise`: of a writer, what it hears of an error of its weights; of a reader, what an error of
    its weights hears of the channel. `gain`: of a reader, how loud it hears an error of the
    channel.
    """

    largest: Doubles
    noise: Doubles
    gain: Doubles


@dataclass(frozen=True)
class Balance:
    """All that decides a group's factors; `peak`: of the values, `low`, `high`: of the factors."""

    writers: Sequence[Side]
    readers: Sequence[Side]
    peak: Doubles
    low: Doubles
    high: Doubles

    def noise(self, factors: Doubles) -> float:
        """Return the expected noise behind the readers, in some unit."""
        ours, theirs = self._terms(factors)
        return float((ours / factors**2 + theirs * factors**2).sum())

    def better(self, factors: Doubles) -> Doubles:
        """Return factors half of the way to the best ones, if the steps stayed as they are."""
        ours, theirs = self._terms(factors)
        wanted = (ours / np.maximum(theirs, 1e-30)) ** 0.25
        return np.asarray(np.clip(np.sqrt(wanted * factors), self.low, self.high))

    def _terms(self, factors: Doubles) -> tuple[Doubles, Doubles]:
        """Return the noise that grows as the factors fall, and as they grow."""
        own = np.full_like(factors, np.square((factors * self.peak).max() / STEPS))
        for side in self.writers:
            own += np.square((factors * side.largest).max() / LEVELS) * side.noise / ROUNDING_GAIN
        gain = np.sum([side.gain for side in self.readers], axis=0)
        steps = [np.square((side.largest / factors).max() / LEVELS) for side in self.readers]
        theirs = [step * side.noise for step, side in zip(steps, self.readers, strict=True)]
        return own * gain, np.sum(theirs, axis=0) / ROUNDING_GAIN


def equalise_for_one_step(graph: Graph, measuring: Floats, judging: Floats) -> Graph:
    """Return the same function with factors for weights of one step per layer.

    None are used if they have more noise on the `judging` images, float32 [n, h, w, 3].
    """
    channels, shapes = measure(graph, measuring)
    nodes = {node.output: node for node in graph.nodes}
    for _ in range(SWEEPS):
        for group in groups(graph, shapes):
            current = refreshed(group, nodes)
            factors = _factors(_balance(current, channels))
            for node in current.writers:
                nodes[node.output] = times(nodes[node.output], factors.astype(np.float32))
            for node in current.readers:
                nodes[node.output] = over(nodes[node.output], factors.astype(np.float32))
            for tensor in current.tensors:
                channels[tensor] = _scaled(channels[tensor], factors)
    equalised = graph.with_nodes(list(nodes.values()))
    wanted = simulate(graph, judging, integer=False)
    ratios = [
        sqnr(wanted, simulate(_rounded(each), judging, integer=True)) for each in (graph, equalised)
    ]
    return equalised if ratios[1] > ratios[0] else graph


def _factors(balance: Balance) -> Doubles:
    """Return the factors with the least noise of those that are tried."""
    factors = np.clip(np.ones_like(balance.peak), balance.low, balance.high)
    best, least = factors, balance.noise(factors)
    for _ in range(ROUNDS):
        factors = balance.better(factors)
        if (noise := balance.noise(factors)) < least:
            best, least = factors, noise
    return best


def _balance(group: ScaleGroup, channels: dict[GraphTensor, Channels]) -> Balance:
    found = [channels[tensor] for tensor in group.tensors]
    peak = np.max([each.peak for each in found], axis=0)
    low, high = np.full_like(peak, 1 / LARGEST), np.full_like(peak, LARGEST)
    for tensor, top in group.ceilings.items():
        if np.isfinite(top):
            own = channels[tensor].peak
            cut = own >= top * (1 - 1e-6)  # a channel that is cut off stays as it is
            low, high = (
                np.where(cut, 1.0, low),
                np.where(cut, 1.0, np.minimum(high, top / np.maximum(own, 1e-30))),
            )
    silent = peak <= SILENT * peak.max()
    low, high = np.where(silent, 1.0, low), np.where(silent, 1.0, high)
    writers = [_writer(node, channels) for node in group.writers]
    readers = [_reader(node, channels) for node in group.readers]
    return Balance(writers, readers, peak, np.minimum(low, high), high)


def _writer(node: Node, channels: dict[GraphTensor, Channels]) -> Side:
    assert node.weights is not None
    kernel = np.abs(node.weights.kernel.astype(np.float64))
    found = channels[node.inputs[0]]
    power = found.power / found.seen
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    if node.weights.kind == "depthwise":
        return Side(taps.max(axis=(0, 2)), len(taps) * power, power)
    return Side(taps.max(axis=(0, 1)), np.full(kernel.shape[-1], len(taps) * power.sum()), power)


def _reader(node: Node, channels: dict[GraphTensor, Channels]) -> Side:
    assert node.weights is not None
    kernel = node.weights.kernel.astype(np.float64)
    found = channels[node.inputs[0]]
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    noise = found.power / found.seen * len(taps) * taps.shape[2]
    return Side(np.abs(taps).max(axis=(0, 2)), noise, np.square(taps).sum(axis=(0, 2)))


def _scaled(found: Channels, factors: Doubles) -> Channels:
    return replace(found, peak=found.peak * factors, power=found.power * factors**2)


def _rounded(graph: Graph) -> Graph:
    """Return the graph with every kernel rounded to the nearest of one step."""
    return graph.with_nodes([_nearest(node) if node.weights else node for node in graph.nodes])


def _nearest(node: Node) -> Node:
    assert node.weights is not None
    flat = windows.flatten(node.weights).astype(np.float64)
    kernel = windows.restore(plain(flat, GRID), node.weights)
    return replace(node, weights=replace(node.weights, kernel=kernel))
