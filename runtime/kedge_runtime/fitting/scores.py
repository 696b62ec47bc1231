"""Score a model's answers by preprocessing, and find one that fits significantly better.

Networks are overconfident by a factor of two or three (Guo et al. 2017, arXiv:1706.04599). A
candidate must not win because it lowers the confidence, so each is scored at its best temperature
within SHARPNESS. A temperature outside is itself the sign of a wrong input: for nets of ReLUs
without norms, x and x / 255 differ only in the scale of the logits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Doubles, Flags, Indices, Pixels
from kedge_runtime.artefact.contract import Input, Label, Output
from kedge_runtime.classify.results import sigmoid
from kedge_runtime.drift.statistics import paired_drop
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.errors import UsageError
from kedge_runtime.fitting import candidates
from kedge_runtime.fitting.candidates import InputCandidate
from kedge_runtime.image.pipelines import formula, in_rgb

LEVEL = 0.95
CLEARLY = 4.0  # standard errors behind the best: excluded
SHARPNESS = np.geomspace(0.2, 2, 12)  # inverse temperatures
_SHARPER = np.geomspace(0.5, 20, 12)  # two views of an image agree more than answer and truth
# A wrong geometry may be better than that of training by this share of the images: nets trained
# on aliased images, for example, are better on smooth ones (benchmarks/fit_input.py).
MARGIN = 0.1
_LEAST = 1e-7  # probabilities below it count as it
# The share of chance in every answer: a few confident errors must not decide. Two views of an
# image seldom contradict each other.
_CHANCE, _CHANCE_OF_VIEWS = 0.01, 1e-4


@dataclass(frozen=True, eq=False)
class Score:
    """Hold a candidate's scores on the first images.

    `values`: for each image, in nats over chance; `right`: whether the best class is the true one,
    None without ground truth.
    """

    candidate: InputCandidate
    values: Doubles
    right: Flags | None = None

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return float(self.values.mean())


def evidence(answers: NDArray[Any], output: Output) -> Doubles:
    """Return logarithms of the classes' weights, [images, classes], from a model's outputs.

    Independent classes are compared by the logarithm of their probabilities. Values that are not
    finite become 0.
    """
    values = answers.astype(np.float64)
    if output.multi_label and output.kind == "logits":
        values = sigmoid(answers.astype(np.float32)).astype(np.float64)
    if output.multi_label or output.kind != "logits":
        values = np.log(np.clip(values, _LEAST, None))
    finite = np.isfinite(values).all(axis=1, keepdims=True)
    values = np.where(finite, values, 0.0)
    return np.asarray(values - values.max(axis=1, keepdims=True))


def log_softmax(values: Doubles) -> Doubles:
    """Return log probabilities along the last axis."""
    highest = values.max(axis=-1, keepdims=True)
    shifted = values - highest
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def likelihood(values: Doubles, classes: Indices) -> Doubles:
    """Return the log-likelihood of each image's true class minus chance's, [images], in nats."""
    rows, count = np.arange(len(classes)), values.shape[1]

    def scored(sharp: float) -> Doubles:
        ratio = count * np.exp(log_softmax(values * sharp)[rows, classes])
        return np.asarray(np.log(_CHANCE + (1 - _CHANCE) * ratio))

    return _sharpest(scored, SHARPNESS)


def agreement(values: Doubles, other: Doubles) -> Doubles:
    """Return how well two views of each image agree, [images], in nats.

    The logarithm of the chance that two views of one image draw the same class, over that for views
    of different images. It is high where answers are confident, varied, and the same for both
    views. It has a wider range of temperatures: otherwise a wrong input that makes the answers more
    confident would win.
    """

    def shared(sharp: float) -> Doubles:
        one, two = np.exp(log_softmax(values * sharp)), np.exp(log_softmax(other * sharp))
        overall = np.maximum((one.mean(axis=0) + two.mean(axis=0)) / 2, _LEAST)
        ratio = (one * two / overall).sum(axis=1)
        return np.asarray(np.log(_CHANCE_OF_VIEWS + (1 - _CHANCE_OF_VIEWS) * ratio))

    return _sharpest(shared, _SHARPER)


def _sharpest(score: Callable[[float], Doubles], sharpness: Doubles) -> Doubles:
    """Return the scores at the inverse temperature with the highest mean."""
    return max(map(score, map(float, sharpness)), key=lambda one: float(one.mean()))


def z_score(better: Doubles, worse: Doubles) -> float:
    """Return the mean paired difference over its standard error; 0 where all are equal."""
    differences = better - worse
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    mean = float(differences.mean())
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def quantile(images: int, compared: int, level: float = LEVEL) -> float:
    """Return the one-sided Student quantile that `compared` differences reach by chance together
    with 1 - `level` (Bonferroni); Cornish and Fisher's expansion of it (Hill 1970, CACM 13, 617).
    """
    z = NormalDist().inv_cdf(1 - (1 - level) / max(1, compared))
    free = max(1, images - 1)
    first = (z**3 + z) / (4 * free)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return z + first + second


def may_be_best(values: Sequence[Doubles]) -> tuple[bool, ...]:
    """Return which candidates may be the best, by their values, each [images].

    The set holds the best with 95 % (Hsu 1984, Annals of Statistics 12, 1136-1144, with
    Bonferroni's bound). Those that are CLEARLY worse don't count among the rivals.
    """
    best = max(values, key=lambda one: float(one.mean()))
    behind = [z_score(best, one) for one in values]
    rivals = sum(z <= CLEARLY for z in behind) - 1
    limit = quantile(len(best), rivals)
    return tuple(z <= limit for z in behind)


def accuracy_lost(score: Score, best: Score) -> tuple[float, float]:
    """Return the 95 % interval of the best one's accuracy minus a score's, on the same images."""
    if score.right is None or best.right is None:
        return 0.0, 1.0
    one, other = score.right, best.right[: len(score.right)]
    low, high = paired_drop((other & ~one).sum(), (one & ~other).sum(), len(one))
    return float(low), float(high)


IMAGES = 100  # at most
LEAST = 20  # fewer images decide nothing
PART = 20  # images for every candidate; only the best one is tried on all images
STRICT_LEVEL = 0.99  # stopping a correct conversion costs more than converting a wrong one


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

    `answers`: returns `evidence` of its outputs, [n, classes], for images of its size, uint8
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
    model: TestedModel,
    paths: Sequence[Path],
    classes: Sequence[int] | None,
    known: Doubles | None = None,
) -> InputFinding | None:
    """Return the known preprocessing that fits significantly better than the model's, or None.

    `paths`: readable images; `classes`: the index of each one's true output; `known`: the model's
    `answers` to them, [images, classes], if it was asked. Takes up to four times as long as these.
    None for features, few images or no classes.
    """
    if classes is None or model.output.kind == "features" or model.output.multi_label:
        return None
    if len(paths) < LEAST:
        return None
    # Drawn, so that the first PART are from several folders.
    drawn = np.random.default_rng(0).permutation(len(paths))[:IMAGES]
    chosen = tuple(paths[i] for i in drawn)
    answers = _answers(model, chosen) if known is None else known[drawn]
    check = _Check(model, chosen, np.array([classes[i] for i in drawn], np.int64), answers)
    found = check.normalisation()
    return found if found is not None else check.geometry()


def _answers(model: TestedModel, paths: Sequence[Path]) -> Doubles:
    geometry = model.input.geometry
    return model.answers(
        candidates.load(paths, model.input, [geometry]).sized[geometry], model.input
    )


@dataclass(frozen=True)
class _Check:
    """Hold the model, the images, their true outputs, and the answers by the input in use."""

    model: TestedModel
    paths: tuple[Path, ...]
    classes: Indices
    answers: Doubles

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
        return self._better(rivals)

    def geometry(self) -> InputFinding | None:
        """Try every geometry with the normalisation in use."""
        spec = self.model.input
        named = candidates.geometries(spec.geometry.height, spec.geometry.width)
        rivals = [
            InputCandidate("", names, Input(g, spec.normalisation, spec.tensor))
            for g, names in named.items()
            if g != spec.geometry
        ]
        return self._better(rivals)

    def _better(self, rivals: list[InputCandidate]) -> InputFinding | None:
        """Return the rival that is best on a part, if it is also better on all images."""
        used, margin = self._used(IMAGES), 0.0 if rivals[0].normalisation else MARGIN
        # Of a model that is right on most images no answers could be so much better.
        if not _more_right(used, replace(used, right=np.ones(len(used.values), bool)), margin):
            return None
        best = max(self._scores(rivals, PART), key=lambda one: one.mean)
        if best.mean <= self._used(PART).mean:
            return None
        (better,) = self._scores([best.candidate], IMAGES)
        limit = quantile(len(used.values), len(rivals), STRICT_LEVEL)
        if z_score(better.values, used.values) <= limit or not _more_right(used, better, margin):
            return None
        return InputFinding(used, better, self._line(used, better))

    def _used(self, count: int) -> Score:
        """Return the score of the input in use on the first `count` images."""
        return self._score(InputCandidate("", (), self.model.input), self.answers[:count])

    def _scores(self, tried: list[InputCandidate], count: int) -> list[Score]:
        """Return the scores on the first `count` images."""
        geometries = list(dict.fromkeys(one.input.geometry for one in tried))
        sized = candidates.load(self.paths[:count], self.model.input, geometries).sized
        answers = (self.model.answers(sized[one.input.geometry], one.input) for one in tried)
        return [self._score(one, each) for one, each in zip(tried, answers, strict=True)]

    def _score(self, candidate: InputCandidate, answers: Doubles) -> Score:
        classes = self.classes[: len(answers)]
        right = answers.argmax(axis=1) == classes
        return Score(candidate, likelihood(answers, classes), right)

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
