"""Where a shipped file loses accuracy, by the Keras layer's name (docs/localisation.md).

The file itself is looked into, not a model quantised like it. Every tensor that it computes is
compared twice: with the float original's, which tells what has gathered up to there, and with what
the float layer gives for the file's own inputs to it, which tells what this layer adds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.localise.drift import LayerDrift, Localisation, layer_drift, plain
from kedge_convert.localise.matching import Matching, match
from kedge_convert.localise.measure import measure
from kedge_convert.localise.picture import svg
from kedge_convert.localise.reference import Reference, reference
from kedge_convert.localise.shipped import Sample, Shipped, open_shipped
from kedge_convert.localise.show import table
from kedge_convert.photos import tensors
from kedge_convert.source import Source
from kedge_runtime.artefact import read_artefact
from kedge_runtime.content import format_of
from kedge_runtime.contract import Contract, Input, Tensor
from kedge_runtime.errors import UsageError
from kedge_runtime.head import Floats

__all__ = ["LayerDrift", "Localisation", "by_layer", "localise", "plain", "svg", "table"]

PROBE = 8  # pictures that matching looks at
MEMORY = 256 << 20  # bytes of the file's tensors that are held at once

Tick = Callable[[], None]


def by_layer(
    path: Path, source: Source, pictures: Sequence[Path], tick: Tick = lambda: None
) -> Localisation:
    """Compare a sealed file with its float original on pictures, layer by layer.

    `tick` is called once per picture. Raises ArtefactError for a file that is unsealed or changed,
    UsageError when it was made from another model or there are no pictures, EngineError when the
    file can't be opened, ImageError for an unreadable picture.
    """
    contract = read_artefact(path).contract
    made_from = contract.provenance
    if made_from.weights_digest != source.weights_digest:
        raise UsageError(
            f"{path}: made from {made_from.source}, whose weights are not those of {source.name}: "
            "give the model that it was converted from"
        )
    return localise(path, contract, source.model, pictures, tick)


def localise(
    path: Path, contract: Contract, model: Any, pictures: Sequence[Path], tick: Tick = lambda: None
) -> Localisation:
    """Do the same with a file that needn't be sealed and a Keras model from pictures to logits."""
    if not pictures:
        raise UsageError("no pictures to compare layers on: give a folder with some")
    case = _Case(open_shipped(format_of(path), path), contract.input, reference(model))
    method = contract.provenance.method
    count = case.affordable(pictures[0])
    # Matching keeps the float layers' values beside the file's, twice.
    probed = pictures[: max(1, min(PROBE, count // 4))]
    matching = case.matching(probed, scaled=method == "prepared")
    kept = [each.index for each in matching.matches]
    samples = (
        case.sample(pictures[at : at + count], kept, tick) for at in range(0, len(pictures), count)
    )
    tallies = measure(case.original, matching, case.shipped.stages, samples)
    layers = (layer_drift(tally, case.original, method) for tally in tallies)
    worst_first = sorted(layers, key=lambda layer: layer.own_sqnr)
    unmatched = tuple(case.shipped.stages[i].name for i in matching.unmatched)
    return Localisation(path.name, len(pictures), tuple(worst_first), unmatched)


@dataclass(frozen=True)
class _Case:
    """The file, what goes into it, and its float original."""

    shipped: Shipped
    spec: Input
    original: Reference

    def affordable(self, picture: Path) -> int:
        """Return how many pictures' tensors fit into MEMORY."""
        (tensor,) = tensors([picture], self.spec)
        return max(1, MEMORY // sum(4 * value.size for value in self.shipped.run(tensor)))

    def matching(self, pictures: Sequence[Path], *, scaled: bool) -> Matching:
        """Return which of the file's tensors is which of the original's."""
        stages = self.shipped.stages
        sample = self.sample(pictures, range(len(stages)), lambda: None)
        return match(self.original, stages, sample, scaled=scaled)

    def sample(self, pictures: Sequence[Path], kept: Sequence[int], tick: Tick) -> Sample:
        """Return the pictures and the stages `kept` of them."""
        raw = list(tensors(pictures, self.spec))
        found: dict[int, list[Floats]] = {index: [] for index in kept}
        for tensor in raw:
            values = self.shipped.run(tensor)
            for index, rows in found.items():
                rows.append(self.shipped.stages[index].real(values[index]))
            tick()
        entered = self.shipped.entry.real(np.concatenate(raw))
        planar = self.spec.tensor.layout == "nchw"
        floats = replace(self.spec, tensor=Tensor())
        return Sample(
            np.concatenate(list(tensors(pictures, floats))),
            np.ascontiguousarray(np.moveaxis(entered, 1, -1)) if planar else entered,
            {index: np.concatenate(rows) for index, rows in found.items()},
        )
