"""Match each tensor of a shipped file with a Keras tensor, and measure the drift of each match.

Folding and fusing leave names that mean several layers or none ("Relu6__5:0"), so a name alone
proves nothing. A file's tensor is compared with what the float layers compute from the file's own
earlier tensors: a faulty layer spoils only its own comparison. A tensor that agrees with nothing is
accepted by its name, or when a later tensor proves to be computed from it. Otherwise it is
unmatched.

Every matched tensor is measured twice: against the float model's value, which shows all drift up to
here; and against the float layer's output for the file's own inputs, which shows what this layer
adds. Only sums are kept, image by image.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from kedge_convert.drift.layer_values import (
    TINY,
    Gauge,
    LayerReference,
    Sums,
    ValueRange,
    Values,
    main,
    weighted,
)
from kedge_convert.drift.layouts import FileChanges, arranged, layouts
from kedge_convert.drift.shipped import ShippedStage, TensorSample
from kedge_convert.prepare.graph import GraphTensor, Node
from kedge_runtime.arrays import Floats

MatchEvidence = Literal["value", "name", "reader", "place"]

SURE = 0.9  # of the power explained, 10 dB: three bits leave as much
SAME = 0.99  # a copy differs by a rounding step
LIKELY = 0.3  # minimum cosine of a match by name alone
REACH = 2  # kernels between a tensor and those matched before it


@dataclass(frozen=True)
class Match:
    """Hold a file's tensor and its Keras tensor.

    `planar`: whether channels come first in the file; `gauge`: the factors of preparation;
    `evidence`: what proves the match: its values, its name, a tensor computed from it, or its place
    as the output.
    """

    index: int
    tensor: GraphTensor
    planar: bool
    gauge: Gauge
    evidence: MatchEvidence

    def arrange(self, values: Floats, shape: tuple[int, ...]) -> Floats:
        """Return the file's values in Keras's shape, [n, ...], and in the float model's scale."""
        return arranged(values, shape, planar=self.planar) / self.gauge.factors

    def learn(self, values: Floats, expected: Floats) -> Floats:
        """Add the values to the gauge; return them as `arrange` does."""
        self.gauge.add(expected, arranged(values, expected.shape, planar=self.planar))
        return self.arrange(values, expected.shape)


@dataclass(frozen=True)
class Matching:
    """Hold the matches in the file's order; `unmatched`: indices of stages without a Keras tensor.

    Copies (a transpose, a reshape) are neither.
    """

    matches: tuple[Match, ...]
    unmatched: tuple[int, ...]


@dataclass(frozen=True)
class _Fit:
    """Hold how well a Keras tensor explains a file's tensor: share of its power, and cosine."""

    match: Match
    explained: float
    cosine: float
    hinted: bool


def match(
    source: LayerReference,
    stages: Sequence[ShippedStage],
    sample: TensorSample,
    changes: FileChanges,
) -> Matching:
    """Match stages to the reference's tensors; `sample` has all stages."""
    alignment = _Alignment(source, sample.file_input, changes)
    values = [sample.stages[i] for i in range(len(stages))]
    for index, (stage, value) in enumerate(zip(stages, values, strict=True)):
        alignment.add(index, stage, value, last=index == len(stages) - 1)
    return alignment.settled(len(stages))


class _Alignment:
    """Hold the matches so far: `_proved`, and `_doubtful` until a later tensor proves them.

    `_firm` is computed from the proved matches alone, `_loose` from all.
    """

    def __init__(self, source: LayerReference, file_input: Floats, changes: FileChanges) -> None:
        self._source, self._changes = source, changes
        self._firm, self._loose = Values(source, file_input), Values(source, file_input)
        self._proved: dict[GraphTensor, _Fit] = {}
        self._doubtful: dict[GraphTensor, _Fit] = {}
        self._raw = {source.graph.input: file_input}
        self._copies: set[int] = set()

    def add(self, index: int, stage: ShippedStage, value: Floats, *, last: bool) -> None:
        """Match one stage where there is evidence."""
        if last:
            self._finish(index, value)
        elif self._placed(index, stage, value):
            return
        elif self._is_copy(value):
            self._copies.add(index)
        else:
            fits = self._candidates(self._loose, index, stage, value)
            best = max(fits, key=lambda fit: (fit.hinted, fit.cosine), default=None)
            if (
                best
                and (best.hinted or best.cosine > 0)
                and best.match.tensor not in self._doubtful
            ):
                self._doubt(best, value)

    def settled(self, count: int) -> Matching:
        """Return the matches that hold."""
        named = {
            tensor: fit
            for tensor, fit in self._doubtful.items()
            if fit.hinted and fit.cosine >= LIKELY
        }
        fits = (self._proved | named).values()
        matches = tuple(sorted((fit.match for fit in fits), key=lambda each: each.index))
        placed = {each.index for each in matches} | self._copies
        return Matching(matches, tuple(i for i in range(count) if i not in placed))

    def _placed(self, index: int, stage: ShippedStage, value: Floats) -> bool:
        """Whether the values prove a match, without or with the doubtful ones."""
        for values in (self._firm, self._loose) if self._doubtful else (self._firm,):
            fits = self._candidates(values, index, stage, value)
            best = max(fits, key=lambda fit: (fit.explained, fit.hinted), default=None)
            if best and best.explained >= SURE:
                self._prove(best, value, values)
                return True
        return False

    def _candidates(
        self, values: Values, index: int, stage: ShippedStage, value: Floats
    ) -> Iterator[_Fit]:
        names = _layers(f"{stage.name};{stage.operator}", self._source.layers)
        for tensor in self._open(values):
            expected = values[tensor]
            hinted = self._hinted(tensor, names)
            for planar in layouts(value.shape, expected.shape, self._changes):
                found = arranged(value, expected.shape, planar=planar)
                gauge = Gauge(fixed=not self._changes.scaled or tensor not in self._source.scalable)
                gauge.add(expected, found)
                match = Match(index, tensor, planar, gauge, "value")
                yield _Fit(match, *_agreement(expected, found / gauge.factors), hinted)

    def _open(self, values: Values) -> Iterator[GraphTensor]:
        """Yield the tensors that aren't set and lie within REACH of those that are."""
        depth: dict[GraphTensor, int] = {}
        stops = values.stops
        for node in self._source.graph.nodes:
            before = [depth.get(tensor, 0) for tensor in self._source.inputs[node.output]]
            own = max(before, default=0) + weighted(node)
            depth[node.output] = 0 if node.output in stops else own
            if own <= REACH and node.output not in stops:
                yield node.output

    def _hinted(self, tensor: GraphTensor, names: set[str]) -> bool:
        """Whether the stage's name has the layer of a tensor, or the layer of its kernel."""
        nodes = self._source.segment(tensor, self._firm.stops)
        return any(node.layer.name.lower() in names for node in (nodes[-1], main(nodes)))

    def _finish(self, index: int, value: Floats) -> None:
        """Match the last stage with the output, by its place."""
        tensor = self._source.graph.output
        self._drop({tensor})
        if tensor in self._proved:
            self._copies.add(self._proved[tensor].match.index)
        match = Match(index, tensor, planar=False, gauge=Gauge(fixed=True), evidence="place")
        for values in (self._firm, self._loose):
            expected = values[tensor]
            agreement = _agreement(expected, match.arrange(value, expected.shape))
            fit = _Fit(match, *agreement, hinted=True)
            if fit.explained >= SURE:
                self._prove(fit, value, values)
                return
        self._proved[tensor] = fit

    def _prove(self, fit: _Fit, value: Floats, values: Values) -> None:
        """Accept a match, and the doubtful ones that it was computed from.

        The doubtful ones that it skips are values inside a layer.
        """
        tensor = fit.match.tensor
        used = self._source.segment(tensor, values.stops)
        skipped = {node.output for node in self._source.segment(tensor, self._firm.stops)}
        for before in {each for node in used for each in self._source.inputs[node.output]}:
            if before in self._doubtful and before in values.stops:
                self._proved[before] = self._doubtful.pop(before)
                self._firm.set(before, self._loose[before])
        self._drop(skipped)
        self._proved[tensor] = fit
        self._enter(fit.match, value, (self._firm, self._loose))

    def _doubt(self, fit: _Fit, value: Floats) -> None:
        evidence: MatchEvidence = "name" if fit.hinted else "reader"
        match = replace(fit.match, evidence=evidence)
        self._doubtful[match.tensor] = replace(fit, match=match)
        self._enter(match, value, (self._loose,))

    def _drop(self, tensors: set[GraphTensor]) -> None:
        for tensor in tensors.intersection(self._doubtful):
            del self._doubtful[tensor]
            self._loose.unset(tensor)

    def _enter(self, match: Match, value: Floats, into: tuple[Values, ...]) -> None:
        for values in into:
            shape = values[match.tensor].shape
            values.set(match.tensor, match.arrange(value, shape))
        self._raw[match.tensor] = arranged(value, shape, planar=match.planar)

    def _is_copy(self, value: Floats) -> bool:
        """Whether a stage has another stage's values, in another shape or order."""
        for raw in self._raw.values():
            for planar in layouts(value.shape, raw.shape, self._changes):
                moved = arranged(value, raw.shape, planar=planar)
                if _agreement(raw, moved)[0] >= SAME:
                    return True
        return False


def _agreement(expected: Floats, found: Floats) -> tuple[float, float]:
    """Return 1 - noise / signal, and the cosine."""
    sums = Sums()
    sums.add(expected, found)
    return 1 - sums.noise / max(sums.signal, TINY), sums.cosine


def _layers(name: str, known: frozenset[str]) -> set[str]:
    """Return the layers in a tensor's name: its scopes without the operator at the end.

    TensorFlow adds _1 to a scope, so "conv_1" is "conv" if there is such a layer.
    """
    scopes = {scope for part in name.lower().split(";") for scope in part.split("/")[:-1]}
    bare = {scope: re.sub(r"_\d+$", "", scope) for scope in scopes}
    return {bare[scope] if bare[scope] in known else scope for scope in scopes}


@dataclass
class LayerTally:
    """Hold the sums of one matched tensor; `nodes`: the Keras nodes since the last match."""

    match: Match
    stage: ShippedStage
    nodes: list[Node]
    total: Sums = field(default_factory=Sums)
    own: Sums = field(default_factory=Sums)
    range: ValueRange = field(default_factory=lambda: ValueRange(np.zeros(1)))


def measure(
    source: LayerReference,
    matching: Matching,
    stages: tuple[ShippedStage, ...],
    samples: Iterable[TensorSample],
) -> list[LayerTally]:
    """Return the tallies in the file's order, summed over all samples."""
    stops = frozenset(each.tensor for each in matching.matches)
    tallies = {
        each.tensor: LayerTally(each, stages[each.index], source.segment(each.tensor, stops))
        for each in matching.matches
    }
    for sample in samples:
        _add(source, tallies, sample)
    return list(tallies.values())


def _add(
    source: LayerReference, tallies: dict[GraphTensor, LayerTally], sample: TensorSample
) -> None:
    floats, shipped = Values(source, sample.images), Values(source, sample.file_input)
    last = source.graph.last_uses()
    for i, node in enumerate(source.graph.nodes):
        tensor = node.output
        reference = floats[tensor]
        if tensor in tallies:
            tally = tallies[tensor]
            expected = shipped[tensor]
            value = tally.match.learn(sample.stages[tally.match.index], expected)
            tally.total.add(reference, value)
            tally.own.add(expected, value)
            tally.range.add(expected * tally.match.gauge.factors, tally.stage)
            shipped.set(tensor, value)
        else:
            shipped[tensor]
        for unused in _unused(source.inputs[tensor], i, last):
            floats.forget(unused)
            shipped.forget(unused)


def _unused(
    inputs: tuple[GraphTensor, ...], index: int, last: dict[GraphTensor, int]
) -> Iterator[GraphTensor]:
    return (tensor for tensor in set(inputs) if last.get(tensor) == index)
