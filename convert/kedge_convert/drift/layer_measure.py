"""Measure the drift of each layer, and the part that the layer adds itself.

Every matched tensor of the file is compared twice: with the float model's value, which shows all
drift up to here; and with the float layer's output for the file's own inputs, which shows what this
layer adds. Only sums are kept, image by image.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from kedge_convert.drift.layer_reference import LayerReference, Values
from kedge_convert.drift.layer_sums import Sums, ValueRange
from kedge_convert.drift.matching import Match, Matching
from kedge_convert.drift.shipped import ShippedStage, TensorSample
from kedge_convert.prepare.graph import GraphTensor, Node


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
