"""Compute every figure of one artefact from its rows: by confidence, answer and class, and in all.

Sums are exact (math.fsum) or over the rows in the order of the images. So they don't depend on how
the work was divided.
"""

import math
from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Indices
from kedge_runtime.drift import gates, report
from kedge_runtime.drift.gates import Estimate, Gate, Pairs
from kedge_runtime.drift.measure import NONE, TOP, Evidence, Rows
from kedge_runtime.drift.statistics import (
    benjamini_hochberg,
    hypergeometric_tail,
    mcnemar,
    mean_interval,
)
from kedge_runtime.errors import UsageError, counted

BINS = 15  # as in Guo et al.


def calibrations(evidence: Evidence) -> report.Calibrations | None:
    """Return both sides' calibration, or None without ground truth."""
    true = evidence.true
    if true is None:
        return None
    reference, artefact = (
        calibration(evidence.rows[side]["confidence"], evidence.best(side) == true)
        for side in ("reference", "artefact")
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


@dataclass(frozen=True)
class _ClassTests:
    """Hold the counts of images and the p-value of each class that is present, all [classes]."""

    classes: Indices
    images: Indices
    flips: Indices
    lost: Indices | None
    gained: Indices | None
    p: list[float]


def per_class(evidence: Evidence) -> report.PerClass:
    """Return every class that has images, the smallest p-value first."""
    tested = _by_flips(evidence) if evidence.true is None else _by_truth(evidence, evidence.true)
    q = benjamini_hochberg(tested.p)
    drifts = [_drift(evidence, tested, i, float(q[i])) for i in range(len(q))]
    drifts.sort(key=lambda drift: (drift.p, drift.index))
    by = "reference" if evidence.true is None else "truth"
    return report.PerClass(by, LEVEL, len(q), int((q <= LEVEL).sum()), tuple(drifts))


def _by_truth(evidence: Evidence, true: Indices) -> _ClassTests:
    classes, members = np.unique(true, return_inverse=True)
    reference, artefact = (evidence.best(side) == true for side in ("reference", "artefact"))
    lost, gained = (
        _counts(members, flags) for flags in (reference & ~artefact, artefact & ~reference)
    )
    p = [mcnemar(int(b), int(c)) for b, c in zip(lost, gained, strict=True)]
    flips = _counts(members, evidence.flipped)
    return _ClassTests(classes, np.bincount(members), flips, lost, gained, p)


def _by_flips(evidence: Evidence) -> _ClassTests:
    classes, members = np.unique(evidence.best("reference"), return_inverse=True)
    images, flips = np.bincount(members), _counts(members, evidence.flipped)
    total, marked = int(images.sum()), int(flips.sum())
    p = [
        hypergeometric_tail(int(drawn), marked, total, int(found))
        for drawn, found in zip(images, flips, strict=True)
    ]
    return _ClassTests(classes, images, flips, None, None, p)


def _counts(members: Indices, flags: Flags) -> Indices:
    """Count the flagged images of each class; every class is in `members`."""
    return np.bincount(members[flags], minlength=int(members.max()) + 1)


def _drift(evidence: Evidence, tested: _ClassTests, i: int, q: float) -> report.ClassDrift:
    label = evidence.label(int(tested.classes[i]))
    return report.ClassDrift(
        index=int(tested.classes[i]),
        id=label.id,
        name=label.name,
        images=int(tested.images[i]),
        flips=int(tested.flips[i]),
        lost=None if tested.lost is None else int(tested.lost[i]),
        gained=None if tested.gained is None else int(tested.gained[i]),
        p=tested.p[i],
        q=q,
    )


@dataclass(frozen=True)
class GateLimits:
    """Hold the limits of the gates, shares 0..1; None for a gate that isn't set."""

    max_drop: float | None = None
    min_agreement: float | None = None

    def __bool__(self) -> bool:
        """Whether any gate is set."""
        return self != GateLimits()


# The gates of a call without any.
WITH_TRUTH, WITHOUT_TRUTH = GateLimits(max_drop=0.01), GateLimits(min_agreement=0.95)


def check_limits(limits: GateLimits, *, has_truth: bool, multi_label: bool = False) -> None:
    """Raise UsageError for a gate that can't be judged, before the work is done."""
    if limits.max_drop is not None and multi_label:
        raise UsageError(
            "--max-drop: the answers are sets of independent classes, and ground truth is one "
            "class of an image: use --min-agreement"
        )
    if limits.max_drop is not None and not has_truth:
        raise UsageError("--max-drop: no ground truth found: give --truth, or use --min-agreement")


def summarise(
    evidence: Evidence, artefact: report.ArtefactDrift, limits: GateLimits
) -> report.Drift:
    """Return the figures of an artefact and the verdict of its gates.

    Raises UsageError when fewer than two images can be read.
    """
    rows = evidence.rows
    if len(rows) < 2:
        raise UsageError(f"{counted(len(rows), 'image')} readable, at least 2 are needed")
    agreed = len(rows) - int(evidence.flipped.sum())
    top1, top5 = (_accuracy(evidence, k) for k in (1, 5))
    judged = _judged(limits, top1, agreed, len(rows))
    return report.Drift(
        artefact=artefact,
        verdict=gates.worst([gate.verdict for gate in judged]),
        gates=judged,
        images=len(rows),
        failed=evidence.part.failed,
        top1=top1,
        top5=top5,
        agreement=gates.share(agreed, len(rows)),
        agreement_top5=_within_five(evidence),
        flips=flips(evidence),
        per_class=None if evidence.multi_label else per_class(evidence),
        calibration=calibrations(evidence),
        entropy=_entropy(rows),
        distances=_distances(rows),
        latency=_latency(evidence.part.seconds),
        agreement_by="labels" if evidence.multi_label else "best",
    )


def _within_five(evidence: Evidence) -> Estimate | None:
    if evidence.multi_label:
        return None
    held = evidence.holds("artefact", evidence.best("reference"), TOP)
    return gates.share(int(held.sum()), len(held))


def _judged(
    limits: GateLimits, top1: report.Accuracy | None, agreed: int, n: int
) -> tuple[Gate, ...]:
    limits = limits or (WITHOUT_TRUTH if top1 is None else WITH_TRUTH)
    judged = []
    if limits.max_drop is not None and top1 is not None:
        judged.append(gates.max_drop(limits.max_drop, top1.pairs))
    if limits.min_agreement is not None:
        judged.append(gates.min_agreement(limits.min_agreement, agreed, n))
    return tuple(judged)


def _accuracy(evidence: Evidence, k: int) -> report.Accuracy | None:
    true = evidence.true
    if true is None:
        return None
    pairs = _pairs(evidence, true, k)
    n = pairs.total
    return report.Accuracy(
        reference=(pairs.both + pairs.lost) / n,
        artefact=(pairs.both + pairs.gained) / n,
        pairs=pairs,
        drop=pairs.drop,
        mcnemar=mcnemar(pairs.lost, pairs.gained),
    )


def _pairs(evidence: Evidence, true: Indices, k: int) -> Pairs:
    reference, artefact = (evidence.holds(side, true, k) for side in ("reference", "artefact"))
    cells = (
        reference & artefact,
        reference & ~artefact,
        ~reference & artefact,
        ~reference & ~artefact,
    )
    return Pairs(*(int(cell.sum()) for cell in cells))


def _entropy(rows: Rows) -> report.Entropy:
    reference, artefact = rows["reference"]["entropy"], rows["artefact"]["entropy"]
    shift = artefact - reference
    low, high = mean_interval(shift)
    return report.Entropy(_mean(reference), _mean(artefact), Estimate(_mean(shift), low, high))


def _distances(rows: Rows) -> report.Distances:
    kl = _mean(rows["kl"])
    if np.isnan(rows["signal"]).any():
        return report.Distances(kl, None, None, None, None)
    signal, noise = (max(math.fsum(rows[name]), 1e-30) for name in ("signal", "noise"))
    return report.Distances(
        kl=kl,
        sqnr=10 * math.log10(signal / noise),
        cosine=_mean(rows["cosine"]),
        max_error=float(rows["max_error"].max()),
        mean_error=_mean(rows["mean_error"]),
    )


def _latency(seconds: Doubles) -> report.Latency:
    median, p90 = (float(np.quantile(seconds, share)) * 1e3 for share in (0.5, 0.9))
    return report.Latency(round(median, 4), round(p90, 4))


def _mean(values: Doubles) -> float:
    return math.fsum(values) / len(values)
