"""Which Keras tensor each tensor of a shipped file is: proposed by shape and name, proved by value.

Folding and fusing leave names that mean several layers or none ("Relu6__5:0"), so that a name alone
proves nothing. A file's tensor is compared with what the float layers compute from the file's own
tensors before it: a faulty layer spoils its own comparison and no other. What still agrees with
nothing is accepted when its name says so, or when a later tensor proves to be computed from it;
otherwise it is unmatched.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kedge_convert.drift.layer_reference import LayerReference, Values, main, weighted
from kedge_convert.drift.layer_sums import TINY, Gauge, Sums
from kedge_convert.drift.shipped import ShippedStage, TensorSample
from kedge_convert.prepare.graph import GraphTensor
from kedge_runtime.arrays import Floats

Evidence = Literal["value", "name", "reader", "place"]

SURE = 0.9  # of the power explained, 10 dB: three bits leave as much
SAME = 0.99  # a copy differs by a rounding step
LIKELY = 0.3  # least cosine of what only its name vouches for
REACH = 2  # kernels between a tensor and those matched before it


@dataclass(frozen=True)
class Match:
    """A file's tensor and the Keras tensor that it is.

    `planar`: channels first in the file. `gauge`: by what preparation multiplied its channels.
    `evidence`: why it is believed: its values, its name, a tensor computed from
    it, or its place as the output.
    """

    index: int
    tensor: GraphTensor
    planar: bool
    gauge: Gauge
    evidence: Evidence

    def arrange(self, values: Floats, shape: tuple[int, ...]) -> Floats:
        """Return the file's values in Keras's shape, [n, ...], and in the float model's scale."""
        return arranged(values, shape, planar=self.planar) / self.gauge.factors

    def learn(self, values: Floats, wanted: Floats) -> Floats:
        """Return the same, after the gauge has seen them beside the wanted ones."""
        self.gauge.add(wanted, arranged(values, wanted.shape, planar=self.planar))
        return self.arrange(values, wanted.shape)


@dataclass(frozen=True)
class Matching:
    """`matches` in the file's order; `unmatched`: indices of the stages that are no Keras tensor's.

    Copies (a transpose, a reshape) are neither.
    """

    matches: tuple[Match, ...]
    unmatched: tuple[int, ...]


@dataclass(frozen=True)
class _Fit:
    """How well a Keras tensor explains a file's: share of its power, and cosine."""

    match: Match
    explained: float
    cosine: float
    hinted: bool


def match(
    source: LayerReference, stages: Sequence[ShippedStage], sample: TensorSample, *, scaled: bool
) -> Matching:
    """Match stages to the reference's tensors, all of which `sample` has.

    `scaled`: whether the file's weights were prepared, so that channels may have been multiplied.
    """
    alignment = _Alignment(source, sample.entered, scaled)
    found = [sample.found[i] for i in range(len(stages))]
    for index, (stage, value) in enumerate(zip(stages, found, strict=True)):
        alignment.place(index, stage, value, last=index == len(stages) - 1)
    return alignment.settled(len(stages))


def arranged(values: Floats, shape: tuple[int, ...], *, planar: bool) -> Floats:
    """Return [n, ...] values in Keras's shape, channels moved to the end if they come first."""
    full = values.reshape(len(values), *_plain(values.shape))
    return (np.moveaxis(full, 1, -1) if planar else full).reshape(len(values), *shape[1:])


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the images and without sides of 1."""
    return tuple(side for side in shape[1:] if side != 1)


def _layouts(found: tuple[int, ...], wanted: tuple[int, ...]) -> list[bool]:
    """Return whether channels may come last (False), or first (True)."""
    a, b = _plain(found), _plain(wanted)
    first = len(a) > 1 and (*a[1:], a[0]) == b
    return [False] * (a == b) + [True] * first


class _Alignment:
    """The matches so far: `_proved` ones, and `_doubtful` ones that a later tensor may yet prove.

    `_firm` is computed from the proved ones alone, `_loose` from all.
    """

    def __init__(self, source: LayerReference, entered: Floats, scaled: bool) -> None:
        self._source, self._scaled = source, scaled
        self._firm, self._loose = Values(source, entered), Values(source, entered)
        self._proved: dict[GraphTensor, _Fit] = {}
        self._doubtful: dict[GraphTensor, _Fit] = {}
        self._raw = {source.graph.input: entered}
        self._copies: set[int] = set()

    def place(self, index: int, stage: ShippedStage, value: Floats, *, last: bool) -> None:
        """Match one stage, if anything speaks for it."""
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
        """Return the claims that hold."""
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
        """Whether the values prove what the stage is, doubtful claims left out or taken in."""
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
            wanted = values[tensor]
            hinted = self._hinted(tensor, names)
            for planar in _layouts(value.shape, wanted.shape):
                found = arranged(value, wanted.shape, planar=planar)
                gauge = Gauge(fixed=not self._scaled or tensor not in self._source.scalable)
                gauge.add(wanted, found)
                claim = Match(index, tensor, planar, gauge, "value")
                yield _Fit(claim, *_agreement(wanted, found / gauge.factors), hinted)

    def _open(self, values: Values) -> Iterator[GraphTensor]:
        """Yield the tensors that aren't set and lie within REACH of those that are."""
        depth: dict[GraphTensor, int] = {}
        stops = values.stops
        for node in self._source.graph.nodes:
            taken = [depth.get(tensor, 0) for tensor in self._source.inputs[node.output]]
            own = max(taken, default=0) + weighted(node)
            depth[node.output] = 0 if node.output in stops else own
            if own <= REACH and node.output not in stops:
                yield node.output

    def _hinted(self, tensor: GraphTensor, names: set[str]) -> bool:
        """Whether the stage's name speaks of the layer that gives a tensor, or of its kernel's."""
        nodes = self._source.segment(tensor, self._firm.stops)
        return any(node.layer.name.lower() in names for node in (nodes[-1], main(nodes)))

    def _finish(self, index: int, value: Floats) -> None:
        """Match the last stage: it is the output, whatever its values are."""
        tensor = self._source.graph.output
        self._drop({tensor})
        if tensor in self._proved:
            self._copies.add(self._proved[tensor].match.index)
        claim = Match(index, tensor, planar=False, gauge=Gauge(fixed=True), evidence="place")
        for values in (self._firm, self._loose):
            wanted = values[tensor]
            fit = _Fit(claim, *_agreement(wanted, claim.arrange(value, wanted.shape)), hinted=True)
            if fit.explained >= SURE:
                self._prove(fit, value, values)
                return
        self._proved[tensor] = fit

    def _prove(self, fit: _Fit, value: Floats, values: Values) -> None:
        """Take a claim for certain, and with it the doubtful ones that it was computed from.

        Doubtful claims that it leaves out are values inside of a layer.
        """
        tensor = fit.match.tensor
        used = self._source.segment(tensor, values.stops)
        passed = {node.output for node in self._source.segment(tensor, self._firm.stops)}
        for taken in {each for node in used for each in self._source.inputs[node.output]}:
            if taken in self._doubtful and taken in values.stops:
                self._proved[taken] = self._doubtful.pop(taken)
                self._firm.set(taken, self._loose[taken])
        self._drop(passed)
        self._proved[tensor] = fit
        self._enter(fit.match, value, (self._firm, self._loose))

    def _doubt(self, fit: _Fit, value: Floats) -> None:
        evidence: Evidence = "name" if fit.hinted else "reader"
        claim = replace(fit.match, evidence=evidence)
        self._doubtful[claim.tensor] = replace(fit, match=claim)
        self._enter(claim, value, (self._loose,))

    def _drop(self, tensors: set[GraphTensor]) -> None:
        for tensor in tensors.intersection(self._doubtful):
            del self._doubtful[tensor]
            self._loose.unset(tensor)

    def _enter(self, claim: Match, value: Floats, into: tuple[Values, ...]) -> None:
        for values in into:
            shape = values[claim.tensor].shape
            values.set(claim.tensor, claim.arrange(value, shape))
        self._raw[claim.tensor] = arranged(value, shape, planar=claim.planar)

    def _is_copy(self, value: Floats) -> bool:
        """Whether a stage only hands on another one's values, in another shape or order."""
        for raw in self._raw.values():
            for planar in _layouts(value.shape, raw.shape):
                moved = arranged(value, raw.shape, planar=planar)
                if _agreement(raw, moved)[0] >= SAME:
                    return True
        return False


def _agreement(wanted: Floats, found: Floats) -> tuple[float, float]:
    """Return 1 - noise / signal, and the cosine."""
    sums = Sums()
    sums.add(wanted, found)
    return 1 - sums.noise / max(sums.signal, TINY), sums.cosine


def _layers(name: str, known: frozenset[str]) -> set[str]:
    """Return the known layers that a tensor's name speaks of: the scopes, not the operator at the
    end. TensorFlow adds _1 to a scope, so that "conv_1" is "conv" if there is such a layer.
    """
    scopes = {scope for part in name.lower().split(";") for scope in part.split("/")[:-1]}
    bare = {scope: re.sub(r"_\d+$", "", scope) for scope in scopes}
    return {bare[scope] if bare[scope] in known else scope for scope in scopes}
