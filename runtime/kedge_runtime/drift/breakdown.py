"""Break a drift down: by confidence, by changed answers, by class."""

from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Indices
from kedge_runtime.drift import report
from kedge_runtime.drift.intervals import benjamini_hochberg, hypergeometric_tail, mcnemar
from kedge_runtime.drift.measure import Evidence
from kedge_runtime.drift.rows import NONE

BINS = 15  # as in Guo et al.


def calibrations(evidence: Evidence) -> report.Calibrations | None:
    """Return both sides' calibration, or None without labels."""
    true = evidence.true
    if true is None:
        return None
    original, artefact = (
        calibration(evidence.rows[side]["confidence"], evidence.best(side) == true)
        for side in ("original", "artefact")
    )
    return report.Calibrations(original, artefact, artefact.ece - original.ece)


def calibration(confidence: Doubles, right: Flags) -> report.Calibration:
    """Return the calibration of answers with a confidence, 0..1, [n], and whether they're right."""
    edges = np.linspace(0, 1, BINS + 1)
    # A bin holds its upper edge, as in the source.
    places = np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sure = np.bincount(places, confidence, BINS)
    correct = np.bincount(places, right, BINS)
    bins = tuple(
        report.ConfidenceBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            pictures=int(count),
            accuracy=float(correct[i] / count) if count else None,
            confidence=float(sure[i] / count) if count else None,
        )
        for i, count in enumerate(counts)
    )
    return report.Calibration(float(np.abs(correct - sure).sum() / len(confidence)), bins)


# Of the original's margin, 0..1: most flips are where it hesitates, so the bins are finer there.
EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
MOST = 100


def flips(evidence: Evidence) -> report.Flips:
    """Return all flips by margin, and those listed of which the original was surest."""
    flipped = evidence.flipped
    margins = evidence.rows["original"]["margin"]
    # The bins hold their lower edge, the last one both.
    places = np.clip(np.searchsorted(EDGES, margins, side="right") - 1, 0, len(EDGES) - 2)
    counts, among = (np.bincount(x, minlength=len(EDGES) - 1) for x in (places, places[flipped]))
    bins = tuple(
        report.MarginBin(low, high, int(count), int(found))
        for low, high, count, found in zip(EDGES, EDGES[1:], counts, among, strict=False)
    )
    which = np.flatnonzero(flipped)
    surest = which[np.argsort(-margins[which], kind="stable")][:MOST]
    return report.Flips(int(flipped.sum()), bins, tuple(_flip(evidence, i) for i in surest))


def _flip(evidence: Evidence, i: int) -> report.Flip:
    true = evidence.true
    return report.Flip(
        image=evidence.names[int(evidence.rows["picture"][i])],
        original=_side(evidence, "original", i),
        artefact=_side(evidence, "artefact", i),
        truth=None if true is None else evidence.label(int(true[i])).name,
    )


def _side(evidence: Evidence, side: str, i: int) -> report.Side:
    found = evidence.rows[side][i]
    margin = float(found["margin"])
    if evidence.multi_label:
        given = tuple(evidence.label(int(k)).name for k in found["top"] if k != NONE)
        return report.Side(None, margin, report.Labels(int(found["labels"]), given))
    best = evidence.prediction(int(found["top"][0]), float(found["confidence"]))
    return report.Side(best, margin)


LEVEL = 0.05


@dataclass(frozen=True)
class _Tested:
    """Counts of pictures and the p-value of each class that is present, all [classes]."""

    classes: Indices
    pictures: Indices
    flips: Indices
    lost: Indices | None
    gained: Indices | None
    p: list[float]


def per_class(evidence: Evidence) -> report.PerClass:
    """Return every class that any picture is of, the most suspicious first."""
    tested = _by_flips(evidence) if evidence.true is None else _by_truth(evidence, evidence.true)
    q = benjamini_hochberg(tested.p)
    drifts = [_drift(evidence, tested, i, float(q[i])) for i in range(len(q))]
    drifts.sort(key=lambda drift: (drift.p, drift.index))
    by = "original" if evidence.true is None else "truth"
    return report.PerClass(by, LEVEL, len(q), int((q <= LEVEL).sum()), tuple(drifts))


def _by_truth(evidence: Evidence, true: Indices) -> _Tested:
    classes, places = np.unique(true, return_inverse=True)
    original, artefact = (evidence.best(side) == true for side in ("original", "artefact"))
    lost, gained = (
        _counts(places, flags) for flags in (original & ~artefact, artefact & ~original)
    )
    p = [mcnemar(int(b), int(c)) for b, c in zip(lost, gained, strict=True)]
    flips = _counts(places, evidence.flipped)
    return _Tested(classes, np.bincount(places), flips, lost, gained, p)


def _by_flips(evidence: Evidence) -> _Tested:
    classes, places = np.unique(evidence.best("original"), return_inverse=True)
    pictures, flips = np.bincount(places), _counts(places, evidence.flipped)
    total, marked = int(pictures.sum()), int(flips.sum())
    p = [
        hypergeometric_tail(int(drawn), marked, total, int(found))
        for drawn, found in zip(pictures, flips, strict=True)
    ]
    return _Tested(classes, pictures, flips, None, None, p)


def _counts(places: Indices, flags: Flags) -> Indices:
    """Return how many of each class are flagged; every class is in `places`."""
    return np.bincount(places[flags], minlength=int(places.max()) + 1)


def _drift(evidence: Evidence, tested: _Tested, i: int, q: float) -> report.ClassDrift:
    label = evidence.label(int(tested.classes[i]))
    return report.ClassDrift(
        index=int(tested.classes[i]),
        id=label.id,
        name=label.name,
        pictures=int(tested.pictures[i]),
        flips=int(tested.flips[i]),
        lost=None if tested.lost is None else int(tested.lost[i]),
        gained=None if tested.gained is None else int(tested.gained[i]),
        p=tested.p[i],
        q=q,
    )
