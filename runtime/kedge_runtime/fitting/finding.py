"""Find out whether another preprocessing fits a model significantly better than its own."""

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
LEAST = 20  # fewer images decide nothing
PART = 20  # images for every candidate; only the best one is tried on all images
LEVEL = 0.99  # stopping a correct conversion costs more than converting a wrong one


@dataclass(frozen=True)
class InputFinding:
    """Hold a candidate that fits the model significantly better than its own preprocessing.

    `used`, `better`: their scores on the same images; `line`: the message for the user.
    """

    used: Score
    better: Score
    line: str


@dataclass(frozen=True)
class TestedModel:
    """Hold a model and its preprocessing.

    `answers`: returns `scores.evidence` of its outputs, [n, classes], for images of its size, uint8
    [n, h, w, c], and a preprocessing.
    """

    name: str
    input: Input
    output: Output
    answers: Callable[[Pixels, Input], Doubles]


def true_outputs(
    paths: Sequence[Path], labels: tuple[Label, ...], output: Output
) -> list[int] | None:
    """Return the index of each image's true output; None without ground truth for all."""
    try:
        truth = read_truth(paths, labels)
    except UsageError:  # incomplete ground truth, which the user didn't ask for
        return None
    offset = output.label_offset
    return None if truth is None else [truth[path] + offset for path in paths]


def better_input(
    model: TestedModel, paths: Sequence[Path], classes: Sequence[int] | None
) -> InputFinding | None:
    """Return the known preprocessing that fits significantly better than the model's, or None.

    `paths`: readable images; `classes`: the index of each one's true output. Takes about five times
    as long as the model's answers to the images. None for features, few images or no classes.
    """
    if classes is None or model.output.kind == "features" or model.output.multi_label:
        return None
    if len(paths) < LEAST:
        return None
    # Drawn, so that the first PART are from several folders.
    drawn = np.random.default_rng(0).permutation(len(paths))[:IMAGES]
    chosen = tuple(paths[i] for i in drawn)
    check = _Check(model, chosen, np.array([classes[i] for i in drawn], np.int64))
    found = check.normalisation()
    return found if found is not None else check.geometry()


@dataclass(frozen=True)
class _Check:
    """Hold the model, the images and their true outputs."""

    model: TestedModel
    paths: tuple[Path, ...]
    classes: Indices

    def normalisation(self) -> InputFinding | None:
        """Try every normalisation and colour order on the geometry in use."""
        spec = self.model.input
        channels = spec.normalisation.channels
        names = (spec.pipeline or candidates.NEUTRAL,)
        known = candidates.normalisations(spec, channels, names)
        used = in_rgb(spec.normalisation), spec.normalisation.colour
        rivals = [
            one
            for one in known
            if (in_rgb(one.input.normalisation), one.input.normalisation.colour) != used
        ]
        pixels = candidates.load(self.paths, spec, [spec.geometry]).sized[spec.geometry]
        return self._better(rivals, dict.fromkeys([spec.geometry], pixels))

    def geometry(self) -> InputFinding | None:
        """Try every geometry with the normalisation in use."""
        spec = self.model.input
        named = candidates.geometries(spec.geometry.height, spec.geometry.width)
        others = {g: names for g, names in named.items() if g != spec.geometry}
        loaded = candidates.load(self.paths, spec, [spec.geometry, *others])
        rivals = [
            InputCandidate("", names, Input(g, spec.normalisation, spec.tensor))
            for g, names in others.items()
        ]
        return self._better(rivals, loaded.sized)

    def _better(
        self, rivals: list[InputCandidate], sized: dict[Geometry, Pixels]
    ) -> InputFinding | None:
        """Return the rival that is best on a part, if it is also better on all images."""
        used = InputCandidate("", (), self.model.input)
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
        answers = self.model.answers(pixels, candidate.input)
        right = answers.argmax(axis=1) == classes
        return Score(candidate, scores.likelihood(answers, classes), right)

    def _line(self, used: Score, better: Score) -> str:
        candidate, spec = better.candidate, self.model.input
        if candidate.normalisation:
            order = ", BGR" if spec.normalisation.colour == "bgr" else ""
            words = f"{formula(spec.normalisation)}{order}", candidate.formula
            flags = candidate.normalisation_flags
            if candidate.colour != spec.normalisation.colour and "--colour" not in flags:
                flags += f" --colour {candidate.colour}"
        else:
            words = (
                spec.pipeline or f"{spec.geometry.resize}, {spec.geometry.fit}",
                candidate.pipelines[0],
            )
            flags = f"--preprocess {candidate.pipelines[0]}"
        counts = [0 if one.right is None else int(one.right.sum()) for one in (used, better)]
        return (
            f"{self.model.name}: {words[0]} gets {counts[0]} of {len(used.values)} images right, "
            f"{words[1]} gets {counts[1]}; give {flags}, or --force-input to keep it"
        )


def _more_right(used: Score, better: Score, margin: float) -> bool:
    """Whether the interval of the difference in accuracy is above a margin."""
    return accuracy_lost(used, better)[0] > margin
