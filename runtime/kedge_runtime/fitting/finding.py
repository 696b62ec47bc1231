"""Stop a conversion whose input is plainly not the one that the model was trained with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_runtime.arrays import Doubles, Indices, Pixels
from kedge_runtime.artefact.contract import Geometry, Input, Label, Output
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.errors import UsageError
from kedge_runtime.fitting import candidates, scores
from kedge_runtime.fitting.candidates import InputCandidate
from kedge_runtime.fitting.scores import MARGIN, Score, accuracy_lost
from kedge_runtime.image.pipelines import formula, in_rgb

IMAGES = 100  # at most
LEAST = 20  # fewer decide nothing
PART = 20  # images on which every candidate is tried; the best one goes on to all
LEVEL = 0.99  # a conversion that is stopped in vain costs more than one that goes on


@dataclass(frozen=True)
class InputFinding:
    """A candidate that fits the model significantly better than the input in use.

    `used`, `better`: their scores on the same images. `line`: for the user.
    """

    used: Score
    better: Score
    line: str


@dataclass(frozen=True)
class Asked:
    """A model that is asked, fed as `input` says.

    `answers`: its numbers of the kind `output` as `scores.evidence`, [n, classes], for images of
    its size, uint8 [n, h, w, c], and a way to feed them.
    """

    name: str
    input: Input
    output: Output
    answers: Callable[[Pixels, Input], Doubles]


def true_outputs(
    paths: Sequence[Path], labels: tuple[Label, ...], output: Output
) -> list[int] | None:
    """Return the index of each image's true output; None where nothing tells that of all."""
    try:
        truth = read_truth(paths, labels)
    except UsageError:  # names that tell of some images only: nobody asked for them here
        return None
    offset = output.label_offset
    return None if truth is None else [truth[path] + offset for path in paths]


def better_input(
    asked: Asked, paths: Sequence[Path], classes: Sequence[int] | None
) -> InputFinding | None:
    """Return the known input that fits significantly better than `asked.input`, or None.

    `paths`: readable images; `classes`: the index of each one's true output. Takes about five times
    as long as the model's answers to the images; None at once for features, few images or no
    classes.
    """
    if classes is None or asked.output.kind == "features" or asked.output.multi_label:
        return None
    if len(paths) < LEAST:
        return None
    # The first PART must not be of one folder.
    drawn = np.random.default_rng(0).permutation(len(paths))[:IMAGES]
    chosen = tuple(paths[i] for i in drawn)
    check = _Check(asked, chosen, np.array([classes[i] for i in drawn], np.int64))
    found = check.normalisation()
    return found if found is not None else check.geometry()


@dataclass(frozen=True)
class _Check:
    """The model, the images and their true outputs."""

    asked: Asked
    paths: tuple[Path, ...]
    classes: Indices

    def normalisation(self) -> InputFinding | None:
        """Try every normalisation and colour order on the geometry in use."""
        fed = self.asked.input
        channels = fed.normalisation.channels
        names = (fed.pipeline or candidates.NEUTRAL,)
        known = candidates.normalisations(fed, channels, names)
        used = in_rgb(fed.normalisation), fed.normalisation.colour
        rivals = [
            one
            for one in known
            if (in_rgb(one.input.normalisation), one.input.normalisation.colour) != used
        ]
        pixels = candidates.load(self.paths, fed, [fed.geometry]).sized[fed.geometry]
        return self._better(rivals, dict.fromkeys([fed.geometry], pixels))

    def geometry(self) -> InputFinding | None:
        """Try every geometry with the normalisation in use."""
        fed = self.asked.input
        size = fed.geometry.height, fed.geometry.width
        ways = {g: names for g, names in candidates.geometries(*size).items() if g != fed.geometry}
        loaded = candidates.load(self.paths, fed, [fed.geometry, *ways])
        rivals = [
            InputCandidate("", names, Input(g, fed.normalisation, fed.tensor))
            for g, names in ways.items()
        ]
        return self._better(rivals, loaded.sized)

    def _better(
        self, rivals: list[InputCandidate], sized: dict[Geometry, Pixels]
    ) -> InputFinding | None:
        """Return the rival that is best on a part, if it is better on all images, too."""
        used = InputCandidate("", (), self.asked.input)
        part = [self._score(one, sized, PART) for one in rivals]
        best = max(part, key=lambda one: one.mean)
        if best.mean <= self._score(used, sized, PART).mean:
            return None
        one, other = (self._score(each, sized, IMAGES) for each in (used, best.candidate))
        limit = scores.quantile(len(one.values), len(rivals), LEVEL)
        margin = 0.0 if best.candidate.normalisation else MARGIN
        if scores.z_score(other.values, one.values) <= limit or not _more_right(one, other, margin):
            return None
        return InputFinding(one, other, self._line(one, other))

    def _score(self, candidate: InputCandidate, sized: dict[Geometry, Pixels], count: int) -> Score:
        pixels, classes = sized[candidate.input.geometry][:count], self.classes[:count]
        given = self.asked.answers(pixels, candidate.input)
        right = given.argmax(axis=1) == classes
        return Score(candidate, scores.likelihood(given, classes), right)

    def _line(self, used: Score, better: Score) -> str:
        candidate, fed = better.candidate, self.asked.input
        if candidate.normalisation:
            order = ", BGR" if fed.normalisation.colour == "bgr" else ""
            words = f"{formula(fed.normalisation)}{order}", candidate.formula
            flags = candidate.normalisation_flags
            if candidate.colour != fed.normalisation.colour and "--colour" not in flags:
                flags += f" --colour {candidate.colour}"
        else:
            words = (
                fed.pipeline or f"{fed.geometry.resize}, {fed.geometry.fit}",
                candidate.pipelines[0],
            )
            flags = f"--preprocess {candidate.pipelines[0]}"
        counts = [0 if one.right is None else int(one.right.sum()) for one in (used, better)]
        return (
            f"{self.asked.name}: {words[0]} gets {counts[0]} of {len(used.values)} images right, "
            f"{words[1]} gets {counts[1]}: give {flags}, or --force-input to insist"
        )


def _more_right(used: Score, better: Score, margin: float) -> bool:
    """Whether the interval of the difference in accuracy lies above a margin."""
    return accuracy_lost(used, better)[0] > margin
