"""How far each layer has drifted, and how much of it is its own: powers summed image by image.

For every matched tensor two references: the float network's own value, and what the float layers
between give for the file's tensors before it. The first tells what has gathered up to here, the
second what this layer adds. Only sums are kept.
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
    """The sums of one matched tensor; `nodes` are the Keras nodes that it stands for."""

    match: Match
    stage: ShippedStage
    nodes: list[Node]
    gathered: Sums = field(default_factory=Sums)
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
    floats, shipped = Values(source, sample.images), Values(source, sample.entered)
    last = source.graph.last_uses()
    for i, node in enumerate(source.graph.nodes):
        tensor = node.output
        wanted = floats[tensor]
        if tensor in tallies:
            tally = tallies[tensor]
            given = shipped[tensor]
            found = tally.match.learn(sample.found[tally.match.index], given)
            tally.gathered.add(wanted, found)
            tally.own.add(given, found)
            tally.range.add(given * tally.match.gauge.factors, tally.stage)
            shipped.set(tensor, found)
        else:
            shipped[tensor]
        for spent in _spent(source.inputs[tensor], i, last):
            floats.forget(spent)
            shipped.forget(spent)


def _spent(
    taken: tuple[GraphTensor, ...], index: int, last: dict[GraphTensor, int]
) -> Iterator[GraphTensor]:
    return (tensor for tensor in set(taken) if last.get(tensor) == index)
