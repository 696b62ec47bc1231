"""Find the preprocessing of a model's training: the normalisation, then the geometry."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kedge_convert.fitting.subject import Norms, Subject, norms_of, outputs
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Doubles, Indices, Pixels
from kedge_runtime.artefact.contract import Geometry, Input
from kedge_runtime.errors import counted
from kedge_runtime.fitting import candidates, scores
from kedge_runtime.fitting.candidates import Images, InputCandidate
from kedge_runtime.fitting.scores import MARGIN, Score, accuracy_lost
from kedge_runtime.image.pipelines import PIPELINES, read_normalisation

# Numbers of images after which clearly worse normalisations are dropped.
PARTS = (32, 64)


@dataclass(frozen=True)
class Judge:
    """Score candidates by a model's answers to images.

    `classes`: the true ones, None without ground truth; `norms`: batch norms to compare with the
    images, or None; `cache`: scores by candidate and number of images.
    """

    subject: Subject
    classes: Indices | None
    norms: Norms | None = None
    cache: dict[tuple[InputCandidate, int], Score] = field(default_factory=dict)

    def score(self, candidate: InputCandidate, pixels: Pixels) -> Score:
        """Return the score of a candidate on images of its geometry, uint8 [n, h, w, c]."""
        key = candidate, len(pixels)
        if key not in self.cache:
            self.cache[key] = self._scored(candidate, pixels)
        return self.cache[key]

    def _scored(self, candidate: InputCandidate, pixels: Pixels) -> Score:
        answers = self.subject.evidence(pixels, candidate.input)
        if self.classes is None:
            other = self.subject.evidence(candidates.zoomed(pixels), candidate.input)
            return Score(
                candidate, scores.agreement(answers, other) - self._distance(candidate, pixels)
            )
        classes = self.classes[: len(pixels)]
        right = answers.argmax(axis=1) == classes
        return Score(candidate, scores.likelihood(answers, classes), right)

    def _distance(self, candidate: InputCandidate, pixels: Pixels) -> Doubles | float:
        """Return the distance of the images' statistics from those of training, in nats."""
        if self.norms is None:
            return 0.0
        moments = outputs(self.norms.model, pixels, candidate.input)
        return self.norms.divergence(moments)


@dataclass(frozen=True)
class Ranking:
    """Hold scores, the best first.

    `possible`: those that may be the best; `same`: those with the same answers as the best.
    """

    scores: tuple[Score, ...]
    possible: tuple[Score, ...]
    same: tuple[Score, ...] = ()

    @property
    def best(self) -> Score:
        """The score of the winner."""
        return self.scores[0]

    @property
    def decided(self) -> bool:
        """Whether only the winner and its equals are possible."""
        return len(self.possible) == len(self.same)


@dataclass(frozen=True)
class InputFit:
    """Hold the result of a search; `geometries`: None where they were not tried."""

    subject: Subject
    images: Images
    normalisations: Ranking
    geometries: Ranking | None
    labelled: bool

    @property
    def informative(self) -> bool:
        """Whether the best candidate's answers are better than chance."""
        ranking = self.normalisations
        values = ranking.best.values
        limit = scores.quantile(len(values), len(ranking.scores))
        return scores.z_score(values, np.zeros_like(values)) > limit

    @property
    def decided(self) -> bool:
        """Whether one normalisation is possible."""
        return self.informative and self.normalisations.decided

    @property
    def winner(self) -> InputCandidate:
        """The candidate to use."""
        return (self.geometries or self.normalisations).best.candidate


def find(subject: Subject, images: Images, classes: Indices | None, progress: Progress) -> InputFit:
    """Return the preprocessing that fits a model best, on images in all geometries.

    `classes`: int64 [images], the index of each image's true output. Geometries need it: the
    confidence of the answers says too little about them.
    """
    judge = Judge(subject, classes, norms_of(subject.model) if classes is None else None)
    geometries = _geometries_of(subject, images)
    geometry = next(g for g, names in geometries.items() if candidates.NEUTRAL in names)
    ranked = _normalisations(judge, images.sized[geometry], geometry, geometries, progress)
    if classes is None:
        return InputFit(subject, images, ranked, None, labelled=False)
    placed = _geometries(judge, images, geometries, ranked.best.candidate, progress)
    ranked = _ranked_again(judge, images, placed.best.candidate, ranked)
    if ranked.best.candidate.formula != placed.best.candidate.formula:
        placed = _geometries(judge, images, geometries, ranked.best.candidate, progress)
    return InputFit(subject, images, ranked, placed, labelled=True)


def start(subject: Subject) -> Input:
    """Return an input of the model's size and channels: bytes, in the neutral geometry."""
    colour = candidates.COLOURS[subject.channels][0]
    geometry = PIPELINES[candidates.NEUTRAL].geometry(subject.height, subject.width)
    return Input(geometry, read_normalisation("raw", colour))


def _geometries_of(subject: Subject, images: Images) -> dict[Geometry, tuple[str, ...]]:
    """Return the geometries; those with the same pixels for these images are one."""
    found: dict[Geometry, tuple[str, ...]] = {}
    for geometry, names in candidates.geometries(subject.height, subject.width).items():
        pixels = images.sized[geometry]
        alike = (g for g in found if np.array_equal(images.sized[g], pixels))
        one = next(alike, geometry)
        found[one] = (*found.get(one, ()), *names)
    return found


def _normalisations(
    judge: Judge,
    pixels: Pixels,
    geometry: Geometry,
    geometries: dict[Geometry, tuple[str, ...]],
    progress: Progress,
) -> Ranking:
    subject = judge.subject
    spec = start(subject)
    tried = candidates.normalisations(spec, subject.channels, geometries[geometry])
    remaining, dropped = list(tried), list[Score]()
    for part in PARTS:
        some = counted(len(pixels[:part]), "image")
        stage = f"{counted(len(remaining), 'normalisation')} on {some}"
        scored = _scored(judge, remaining, pixels[:part], stage, progress)
        best = max(scored, key=lambda one: one.mean)
        behind = [scores.z_score(best.values, one.values) for one in scored]
        dropped += [one for one, z in zip(scored, behind, strict=True) if z > scores.CLEARLY]
        remaining = [one.candidate for one in scored if one not in dropped]
    return rank(_scored(judge, remaining, pixels, "compare the best", progress), dropped)


def _scored(
    judge: Judge, tried: Sequence[InputCandidate], pixels: Pixels, stage: str, progress: Progress
) -> list[Score]:
    with progress.stage(stage, len(tried)) as tick:
        found = []
        for candidate in tried:
            found.append(judge.score(candidate, pixels))
            tick()
    return found


def _geometries(
    judge: Judge,
    images: Images,
    geometries: dict[Geometry, tuple[str, ...]],
    best: InputCandidate,
    progress: Progress,
) -> Ranking:
    with progress.stage("try geometries", len(geometries)) as tick:
        found = []
        for geometry, names in geometries.items():
            candidate = best.with_geometry(geometry, names)
            found.append(judge.score(candidate, images.sized[geometry]))
            tick()
    return _lenient(rank(found))


def _lenient(ranked: Ranking) -> Ranking:
    """Return the ranking of geometries; only those worse by more than MARGIN are excluded."""
    possible = [
        one
        for one in ranked.scores
        if one in ranked.possible or accuracy_lost(one, ranked.best)[0] <= MARGIN
    ]
    return replace(ranked, possible=tuple(possible))


def _ranked_again(judge: Judge, images: Images, placed: InputCandidate, ranked: Ranking) -> Ranking:
    """Rank the possible normalisations again on the best geometry, which separates them better."""
    if ranked.decided:
        return ranked
    geometry, names = placed.input.geometry, placed.pipelines
    moved = [one.candidate.with_geometry(geometry, names) for one in ranked.possible]
    found = [judge.score(one, images.sized[geometry]) for one in moved]
    return rank(found, [one for one in ranked.scores if one not in ranked.possible])


def rank(whole: Sequence[Score], dropped: Sequence[Score] = ()) -> Ranking:
    """Rank scores on the same images; `dropped` ones, of fewer images, can't be the best."""
    may_be = scores.may_be_best([one.values for one in whole])
    ordered = sorted(whole, key=lambda one: -one.mean)
    possible = [one for one, may in zip(whole, may_be, strict=True) if may]
    possible.sort(key=lambda one: -one.mean)
    same = [one for one in possible if _alike(ordered[0], one)]
    rest = sorted(dropped, key=lambda one: -one.mean)
    return Ranking((*ordered, *rest), tuple(possible), tuple(same))


def _alike(one: Score, other: Score) -> bool:
    return bool(np.allclose(one.values, other.values, rtol=1e-4, atol=1e-5))
