"""Compute the figures by confidence, by answer and by class of one artefact from its rows."""

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Indices
from kedge_runtime.drift import report
from kedge_runtime.drift.by_class import ClassDrift, ClassName, Confusion, Mistake, PerClass
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.measure import NONE, SIDES
from kedge_runtime.drift.statistics import BINS, benjamini_hochberg, hypergeometric_tail, mcnemar
from kedge_runtime.frozen import dataclass


def calibrations(evidence: Evidence) -> report.Calibrations | None:
    """Return both sides' calibration, or None without ground truth."""
    true = evidence.true
    if true is None:
        return None
    reference, artefact = (
        calibration(evidence.rows[side]["confidence"], evidence.best(side) == true)
        for side in SIDES
    )
    return report.Calibrations(reference, artefact, artefact.ece - reference.ece)


def calibration(confidence: Doubles, right: Flags) -> report.Calibration:
    """Return the calibration of answers.

    `confidence`: 0..1, [n]; `right`: whether the answer is right, [n].
    """
    edges = np.linspace(0, 1, BINS + 1)
    # A bin holds its upper edge, as in the source.
    members = np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1)
    counts = np.bincount(members, minlength=BINS)
    confident = np.bincount(members, confidence, BINS)
    correct = np.bincount(members, right, BINS)
    bins = tuple(
        report.ConfidenceBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            images=int(count),
            accuracy=float(correct[i] / count) if count else None,
            confidence=float(confident[i] / count) if count else None,
        )
        for i, count in enumerate(counts)
    )
    return report.Calibration(float(np.abs(correct - confident).sum() / len(confidence)), bins)


# A step of 5 points, and the last per cent, where a well-trained model has most of its answers.
THRESHOLDS = (*(step / 20 for step in range(20)), 0.99)


def coverage(evidence: Evidence) -> report.Coverage | None:
    """Return what each side answers, and gets right, at each of THRESHOLDS."""
    if evidence.multi_label:
        return None
    return report.Coverage(*(_answered(evidence, side) for side in SIDES))


def _answered(evidence: Evidence, side: str) -> tuple[report.CoveragePoint, ...]:
    confidence, true = evidence.rows[side]["confidence"], evidence.true
    right = None if true is None else evidence.best(side) == true
    points = []
    for threshold in THRESHOLDS:
        sure = confidence >= threshold
        known = None if right is None else int((sure & right).sum())
        points.append(report.CoveragePoint(threshold, int(sure.sum()), known))
    return tuple(points)


# Bins of the reference's margin, 0..1: finer near 0, where most flips are.
EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
MAX_LISTED = 100


def flips(evidence: Evidence) -> report.Flips:
    """Return all flips by the reference's margin, and list those with the largest."""
    flipped = evidence.flipped
    margins = evidence.rows["reference"]["margin"]
    # A bin holds its lower edge; the last one holds both.
    members = np.clip(np.searchsorted(EDGES, margins, side="right") - 1, 0, len(EDGES) - 2)
    images, changed = (
        np.bincount(x, minlength=len(EDGES) - 1) for x in (members, members[flipped])
    )
    bins = tuple(
        report.MarginBin(low, high, int(count), int(flips))
        for low, high, count, flips in zip(EDGES, EDGES[1:], images, changed, strict=False)
    )
    which = np.flatnonzero(flipped)
    largest = which[np.argsort(-margins[which], kind="stable")][:MAX_LISTED]
    return report.Flips(int(flipped.sum()), bins, tuple(_flip(evidence, i) for i in largest))


def _flip(evidence: Evidence, i: int) -> report.Flip:
    true = evidence.true
    return report.Flip(
        image=evidence.names[int(evidence.rows["image"][i])],
        reference=_side(evidence, "reference", i),
        artefact=_side(evidence, "artefact", i),
        truth=None if true is None else evidence.label(int(true[i])).name,
    )


def _side(evidence: Evidence, side: str, i: int) -> report.SideAnswer:
    answer = evidence.rows[side][i]
    margin = float(answer["margin"])
    if evidence.multi_label:
        names = tuple(evidence.label(int(k)).name for k in answer["top"] if k != NONE)
        return report.SideAnswer(None, margin, report.LabelSet(int(answer["labels"]), names))
    best = evidence.prediction(int(answer["top"][0]), float(answer["confidence"]))
    return report.SideAnswer(best, margin)


LEVEL = 0.05
# The fields of ClassDrift that need ground truth.
RIGHT = ("reference", "artefact", "lost", "gained")


@dataclass(frozen=True)
class _ClassTests:
    """Hold the counts of images and the p-value of each class that is present, all [classes].

    `right`: the fields of ClassDrift that need ground truth, None without it.
    """

    classes: Indices
    images: Indices
    flips: Indices
    p: list[float]
    right: dict[str, Indices | None]


def per_class(evidence: Evidence) -> PerClass:
    """Return every class that has images, the smallest p-value first."""
    tested = _by_flips(evidence) if evidence.true is None else _by_truth(evidence, evidence.true)
    q = benjamini_hochberg(tested.p)
    drifts = [_drift(evidence, tested, i, float(q[i])) for i in range(len(q))]
    drifts.sort(key=lambda drift: (drift.p, drift.index))
    by = "reference" if evidence.true is None else "truth"
    return PerClass(by, LEVEL, len(q), int((q <= LEVEL).sum()), tuple(drifts))


def _by_truth(evidence: Evidence, true: Indices) -> _ClassTests:
    classes, members = np.unique(true, return_inverse=True)
    reference, artefact = (evidence.best(side) == true for side in SIDES)
    flags = (reference, artefact, reference & ~artefact, artefact & ~reference)
    right = {name: _counts(members, each) for name, each in zip(RIGHT, flags, strict=True)}
    p = [mcnemar(int(b), int(c)) for b, c in zip(right["lost"], right["gained"], strict=True)]
    flips = _counts(members, evidence.flipped)
    return _ClassTests(classes, np.bincount(members), flips, p, {**right})


def _by_flips(evidence: Evidence) -> _ClassTests:
    classes, members = np.unique(evidence.best("reference"), return_inverse=True)
    images, flips = np.bincount(members), _counts(members, evidence.flipped)
    total, marked = int(images.sum()), int(flips.sum())
    p = [
        hypergeometric_tail(int(drawn), marked, total, int(found))
        for drawn, found in zip(images, flips, strict=True)
    ]
    return _ClassTests(classes, images, flips, p, dict.fromkeys(RIGHT))


def _counts(members: Indices, flags: Flags) -> Indices:
    """Count the flagged images of each class; every class is in `members`."""
    return np.bincount(members[flags], minlength=int(members.max()) + 1)


def _drift(evidence: Evidence, tested: _ClassTests, i: int, q: float) -> ClassDrift:
    label = evidence.label(int(tested.classes[i]))
    return ClassDrift(
        index=int(tested.classes[i]),
        id=label.id,
        name=label.name,
        images=int(tested.images[i]),
        flips=int(tested.flips[i]),
        p=tested.p[i],
        q=q,
        **{name: None if n is None else int(n[i]) for name, n in tested.right.items()},
    )


MAX_CLASSES = 20  # more cells than 400 can't be read
MAX_MISTAKES = 20


def confusion(evidence: Evidence) -> Confusion | None:
    """Return the classes that are taken for others; None for independent classes."""
    if evidence.multi_label:
        return None
    true, answers = evidence.true, [evidence.best(side) for side in SIDES]
    rows = answers[0] if true is None else true
    present = np.unique(np.concatenate([rows, *answers]))
    at = [np.searchsorted(present, each) for each in (rows, *answers)]
    reference, artefact = (_crossed(at[0], side, len(present)) for side in at[1:])
    is_small = len(present) <= MAX_CLASSES
    names = [_name(evidence, int(i)) for i in present]
    return Confusion(
        by="reference" if true is None else "truth",
        classes=tuple(names) if is_small else (),
        reference=None if true is None else _matrix(reference, len(names) * is_small),
        artefact=_matrix(artefact, len(names) * is_small),
        mistakes=_mistakes(names, None if true is None else reference, artefact),
    )


# Images by (row, column); a matrix of 21 000 classes would take gigabytes.
_Crossed = dict[tuple[int, int], int]


def _crossed(rows: Indices, columns: Indices, classes: int) -> _Crossed:
    cells, counts = np.unique(rows * classes + columns, return_counts=True)
    pairs = zip(*(each.tolist() for each in (*np.divmod(cells, classes), counts)), strict=True)
    return {(row, column): count for row, column, count in pairs}


def _matrix(crossed: _Crossed, size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(crossed.get((i, j), 0) for j in range(size)) for i in range(size))


def _mistakes(
    names: list[ClassName], reference: _Crossed | None, artefact: _Crossed
) -> tuple[Mistake, ...]:
    """Return the pairs of different classes with most images on either side."""
    known = reference or {}
    pairs = {pair for pair in (*known, *artefact) if pair[0] != pair[1]}

    def order(pair: tuple[int, int]) -> tuple[int, int, tuple[int, int]]:
        both = artefact.get(pair, 0), known.get(pair, 0)
        return -max(both), -abs(both[0] - both[1]), pair

    return tuple(
        Mistake(
            names[row],
            names[column],
            None if reference is None else reference.get((row, column), 0),
            artefact.get((row, column), 0),
        )
        for row, column in sorted(pairs, key=order)[:MAX_MISTAKES]
    )


def _name(evidence: Evidence, index: int) -> ClassName:
    label = evidence.label(index)
    return ClassName(index, label.id, label.name)
