"""Compute the float model layer by layer, and sum a tensor's values image by image.

`Values` computes only the tensors that are read, from the input or from values that are set. A
tensor that is set to the shipped file's value cuts the graph: later tensors are computed from it.
So a layer's own part of the drift is separate from the drift of its inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.drift.shipped import ShippedStage
from kedge_convert.prepare.equalise import LARGEST, groups
from kedge_convert.prepare.fold import fold
from kedge_convert.prepare.graph import Graph, GraphTensor, Node, trace
from kedge_convert.prepare.running import fold_over
from kedge_runtime.arrays import Doubles, Floats


@dataclass(frozen=True)
class LayerReference:
    """Hold the traced graph of a Keras model.

    By each node's output: `producers`: the node; `inputs`: its tensors; `names`: its layer's name,
    with nested models' before a slash. `scalable`: tensors whose channels preparation may have
    multiplied (docs/quantisation.md).
    """

    graph: Graph
    producers: dict[GraphTensor, Node]
    inputs: dict[GraphTensor, tuple[GraphTensor, ...]]
    names: dict[GraphTensor, str]
    scalable: frozenset[GraphTensor]

    @cached_property
    def order(self) -> dict[GraphTensor, int]:
        """The index of each node in the execution order, by its output."""
        return {node.output: i for i, node in enumerate(self.graph.nodes)}

    @cached_property
    def layers(self) -> frozenset[str]:
        """The layers' own names in lower case, which may be in the names of the file's tensors."""
        return frozenset(node.layer.name.lower() for node in self.graph.nodes)

    def segment(self, tensor: GraphTensor, stops: "frozenset[GraphTensor]") -> list[Node]:
        """Return the nodes between a tensor and the stops before it, in execution order."""
        nodes: dict[GraphTensor, Node] = {}
        waiting = [tensor]
        while waiting:
            one = waiting.pop()
            if one in nodes or one not in self.producers or (one in stops and one != tensor):
                continue
            nodes[one] = self.producers[one]
            waiting += self.inputs[one]
        return sorted(nodes.values(), key=lambda node: self.order[node.output])


def layer_reference(model: Any) -> LayerReference:
    """Return the reference of a Keras model, images to logits."""
    graph = trace(model)
    producers = {node.output: node for node in graph.nodes}
    inputs = {node.output: tuple(node.inputs) for node in graph.nodes}
    return LayerReference(graph, producers, inputs, _names(graph, model), _scalable(graph))


def weighted(node: Node) -> bool:
    """Whether a node's layer has a kernel."""
    return any(len(weight.shape) > 1 for weight in getattr(node.layer, "weights", ()))


def main(nodes: Sequence[Node]) -> Node:
    """Return the node that names a segment: the last one with a kernel, or else the last one."""
    return next((node for node in reversed(nodes) if weighted(node)), nodes[-1])


class Values:
    """Hold the tensors of a reference on some images, float32 [n, ...]; each can be set."""

    def __init__(self, source: LayerReference, images: Floats) -> None:
        """Start from the images."""
        self._source = source
        self._set = {source.graph.input: images}
        self._computed: dict[GraphTensor, Floats] = {}

    @property
    def stops(self) -> frozenset[GraphTensor]:
        """The tensors that are set."""
        return frozenset(self._set)

    def __getitem__(self, tensor: GraphTensor) -> Floats:
        """Return a tensor's value, computed from those that are set."""
        for node in self._missing(tensor):
            value = node.run(self._known)
            self._computed[node.output] = np.asarray(value, np.float32)
        return self._known(tensor)

    def set(self, tensor: GraphTensor, value: Floats) -> None:
        """Set a tensor; values that were computed from the former one are dropped."""
        self._set[tensor] = value
        stale = {tensor}
        for node in self._source.graph.nodes:
            if (
                stale.intersection(self._source.inputs[node.output])
                and node.output not in self._set
            ):
                stale.add(node.output)
                self._computed.pop(node.output, None)
        self._computed.pop(tensor, None)

    def unset(self, tensor: GraphTensor) -> None:
        """Let a tensor be computed again."""
        self.set(tensor, self._set[tensor])
        del self._set[tensor]

    def forget(self, tensor: GraphTensor) -> None:
        """Drop a value that nothing reads again."""
        self._set.pop(tensor, None)
        self._computed.pop(tensor, None)

    def _known(self, tensor: GraphTensor) -> Floats:
        return self._set[tensor] if tensor in self._set else self._computed[tensor]

    def _missing(self, tensor: GraphTensor) -> list[Node]:
        known = self.stops.union(self._computed)
        return [] if tensor in known else self._source.segment(tensor, known)


def _names(graph: Graph, model: Any) -> dict[GraphTensor, str]:
    """Return each node's name; a layer's second call has a number."""
    paths = dict(_paths(model, ""))
    calls: dict[str, int] = {}
    names = {}
    for node in graph.nodes:
        name = paths.get(id(node.layer), node.layer.name)
        calls[name] = calls.get(name, 0) + 1
        names[node.output] = name if calls[name] == 1 else f"{name} (call {calls[name]})"
    return names


def _paths(model: Any, prefix: str) -> Iterator[tuple[int, str]]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _paths(layer, f"{prefix}{layer.name}/")
        else:
            yield id(layer), prefix + layer.name


def _scalable(graph: Graph) -> frozenset[GraphTensor]:
    """Return the traced tensors whose channels equalisation may scale."""
    folded = fold(graph)
    shapes: dict[GraphTensor, tuple[int, ...]] = {}
    zeros = np.zeros((1, *graph.shape), np.float32)
    fold_over(folded, zeros, lambda tensor, value: shapes.__setitem__(tensor, value.shape))
    free = {tensor for group in groups(folded, shapes) for tensor in group.tensors}
    outputs = {node.output for node in folded.nodes}
    folded_into: dict[GraphTensor, GraphTensor] = {}
    for node in graph.nodes:
        first = node.inputs[0]
        merged = node.output not in outputs
        folded_into[node.output] = folded_into.get(first, first) if merged else node.output
    return frozenset(tensor for tensor, target in folded_into.items() if target in free)


SILENT = 1e-6  # of the tensor's peak: the range of a smaller channel doesn't count
CEILING = 150.0  # dB; float32 itself has no more
TINY = 1e-30


@dataclass
class Sums:
    """Sum the powers of a pair of tensors: reference r, shipped q, error q - r."""

    signal: float = 0.0
    power: float = 0.0
    product: float = 0.0
    noise: float = 0.0

    def add(self, reference: Floats, shipped: Floats) -> None:
        """Add values of the same shape."""
        self.signal += _total(np.square(reference))
        self.power += _total(np.square(shipped))
        self.product += _total(reference * shipped)
        self.noise += _total(np.square(shipped - reference))

    @property
    def sqnr(self) -> float:
        """Signal to noise in dB."""
        return decibels(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """The cosine between reference and shipped."""
        return float(self.product / max(np.sqrt(self.signal * self.power), TINY))


@dataclass
class ValueRange:
    """Sum what a tensor's range must hold, in the file's units.

    `peaks`: [channels]; `power`: sum of squares; `beyond`: number of values outside the range.
    """

    peaks: NDArray[np.float64]
    power: float = 0.0
    beyond: int = 0
    count: int = 0

    def add(self, values: Floats, stage: ShippedStage) -> None:
        """Add the float layer's values."""
        low, high = stage.range
        # Half a step beyond the end is still rounded to the end.
        outside = (values < low - stage.step / 2) | (values > high + stage.step / 2)
        rows = np.abs(values).reshape(-1, values.shape[-1])
        self.peaks = np.maximum(self.peaks, rows.max(axis=0))
        self.power += float(np.square(rows, dtype=np.float64).sum())
        self.beyond += int(outside.sum())
        self.count += values.size

    def floor(self, step: float) -> float:
        """Return the SQNR in dB of rounding to the step alone: noise step^2 / 12."""
        return decibels(self.power, self.count * step**2 / 12)

    @property
    def spread(self) -> float:
        """The largest channel's peak to the median channel's."""
        active = self.peaks[self.peaks > SILENT * self.peaks.max(initial=0.0)]
        return float(active.max() / np.median(active)) if active.size else 1.0

    @property
    def crest(self) -> float:
        """The peak to the root mean square."""
        mean = np.sqrt(self.power / max(self.count, 1))
        return float(self.peaks.max(initial=0.0) / max(mean, TINY))


def decibels(signal: float, noise: float) -> float:
    """Return the ratio in dB, at most CEILING."""
    ratio = 10 * np.log10(max(signal, TINY) / max(noise, TINY))
    return float(min(ratio, CEILING))


def _total(values: Floats) -> float:
    return float(values.sum(dtype=np.float64))


CUT = 0.98  # of a tensor's peak: an enlarged value above it may have been clipped
ENOUGH = 0.01  # of a channel's power: with less of it below the cut, all of it is used


@dataclass
class GaugeMoments:
    """Sum by channel, [channels]: expected^2, and expected times found."""

    power: Doubles = field(default_factory=lambda: np.zeros(1))
    shared: Doubles = field(default_factory=lambda: np.zeros(1))

    def add(self, expected: Floats, found: Floats) -> None:
        """Add rows of [n, channels]."""
        self.power = self.power + np.square(expected).sum(axis=0, dtype=np.float64)
        self.shared = self.shared + (expected * found).sum(axis=0, dtype=np.float64)


@dataclass
class Gauge:
    """Estimate the factors of one tensor's channels; `fixed` ones are 1."""

    fixed: bool
    every: GaugeMoments = field(default_factory=GaugeMoments)
    uncut: GaugeMoments = field(default_factory=GaugeMoments)

    def add(self, expected: Floats, found: Floats) -> None:
        """Add the float model's values and the file's, both [..., channels]."""
        if self.fixed:
            return
        ours = expected.reshape(-1, expected.shape[-1])
        theirs = found.reshape(ours.shape)
        below = np.abs(theirs) < CUT * np.abs(theirs).max(initial=0.0)
        self.every.add(ours, theirs)
        self.uncut.add(ours * below, theirs)

    @property
    def factors(self) -> Floats:
        """Return the factors, [channels] or [1], from 1 to LARGEST; 1 for a silent channel."""
        enough = self.uncut.power > ENOUGH * self.every.power
        power = np.where(enough, self.uncut.power, self.every.power)
        shared = np.where(enough, self.uncut.shared, self.every.shared)
        ratio = np.divide(shared, power, out=np.ones_like(power), where=power > 0)
        return np.asarray(np.clip(ratio, 1.0, LARGEST), np.float32)
