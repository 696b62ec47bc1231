"""Compute every figure of one artefact from its rows, and the verdict of its gates.

Sums are exact (math.fsum) or over the rows in the order of the images. So they don't depend on how
the work was divided.
"""

import math

import numpy as np

from kedge_runtime.arrays import Doubles, Indices
from kedge_runtime.drift import breakdown, gates, report
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.gates import Estimate, Gate, Pairs
from kedge_runtime.drift.measure import TOP, Rows
from kedge_runtime.drift.statistics import mcnemar, mean_interval
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.frozen import dataclass


@dataclass(frozen=True)
class GateLimits:
    """Hold the limits of the gates, shares 0..1; None for a gate that isn't set."""

    max_drop: float | None = None
    min_agreement: float | None = None

    def __bool__(self) -> bool:
        """Whether any gate is set."""
        return self != GateLimits()


# The gates of a call without any. Below ENOUGH labelled images one point of accuracy is nearly
# always left open: of 381 not one may be lost, of 1 000 three may. The agreement needs no labels.
WITH_TRUTH, WITHOUT_TRUTH = GateLimits(max_drop=0.01), GateLimits(min_agreement=0.95)
ENOUGH = 1000


def default_limits(labelled: int) -> GateLimits:
    """Return the gates of a call without any, for so many images with ground truth."""
    return WITH_TRUTH if labelled >= ENOUGH else WITHOUT_TRUTH


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
    agreement = gates.share(agreed, len(rows))
    top1, top5 = (_accuracy(evidence, k) for k in (1, TOP))
    judged = _judged(limits, top1, agreed, len(rows))
    return report.Drift(
        artefact=artefact,
        verdict=gates.worst([gate.verdict for gate in judged]),
        gates=judged,
        images=len(rows),
        failed=evidence.part.failed,
        top1=top1,
        top5=top5,
        agreement=agreement,
        agreement_top5=_within_five(evidence),
        flips=breakdown.flips(evidence),
        per_class=None if evidence.multi_label else breakdown.per_class(evidence),
        calibration=breakdown.calibrations(evidence),
        entropy=_entropy(rows),
        distances=_distances(rows),
        latency=_latency(evidence.part.seconds),
        holds=gates.holds(top1.drop if top1 else None, agreement),
        confusion=breakdown.confusion(evidence),
        coverage=breakdown.coverage(evidence),
        agreement_by="labels" if evidence.multi_label else "best",
        default_gate=not limits,
    )


def _within_five(evidence: Evidence) -> Estimate | None:
    if evidence.multi_label or not _has_top5(evidence):
        return None
    held = evidence.holds("artefact", evidence.best("reference"), TOP)
    return gates.share(int(held.sum()), len(held))


def _has_top5(evidence: Evidence) -> bool:
    """Whether five answers can miss a class at all."""
    return len(evidence.labels) > TOP


def _judged(
    limits: GateLimits, top1: report.Accuracy | None, agreed: int, n: int
) -> tuple[Gate, ...]:
    limits = limits or default_limits(0 if top1 is None else n)
    judged = []
    if limits.max_drop is not None and top1 is not None:
        judged.append(gates.max_drop(limits.max_drop, top1.pairs))
    if limits.min_agreement is not None:
        judged.append(gates.min_agreement(limits.min_agreement, agreed, n))
    return tuple(judged)


def _accuracy(evidence: Evidence, k: int) -> report.Accuracy | None:
    true = evidence.true
    if true is None or (k == TOP and not _has_top5(evidence)):
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
