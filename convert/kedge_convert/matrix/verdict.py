"""Decide why a cell passes or fails: every reason is in this file, in the order of the report.

1. Its conversion made no file: `Failures` has the converter's reason.
2. Its evidence is incomplete: the cache here lacks the file or the measurement (`ELSEWHERE`).
3. Its gates, in the order of `GATES`: first `conversion` (the converter's own check), then those of
   `kedge.toml`, last `baseline` (the accepted artefact in `kedge.lock.toml`).

Accuracy and latency are judged by the bound of their interval, as `kedge drift` does it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kedge_convert.matrix import tables
from kedge_convert.matrix.evidence import CellEvidence, exactly
from kedge_convert.matrix.lock import Accepted
from kedge_convert.matrix.record import Baseline, GateReport, accuracy_gate
from kedge_runtime.drift import gates as drift_gates
from kedge_runtime.drift.gates import Verdict
from kedge_runtime.drift.report import Drift, drop_interval, points, share_interval
from kedge_runtime.drift.summary import default_limits
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.output import percent

ELSEWHERE = (
    "a worker's result isn't in --cache here: all machines need that folder under the same path, "
    "the same versions and the same processor"
)


@dataclass(frozen=True)
class Failures:
    """Hold the reasons of cells without an artefact, and the names of those made in this build."""

    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    converted: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()


def judge_cell(
    name: str, evidence: CellEvidence | None, failures: Failures, accepted: Accepted | None
) -> tuple[GateReport, ...]:
    """Return the gates of a cell. Raises UsageError for a gate that lacks ground truth."""
    if evidence is None or not evidence.is_complete:
        return (failed(failures.reasons.get(name, (ELSEWHERE,))),)
    return judge(evidence, accepted)


def judge(evidence: CellEvidence, accepted: Accepted | None) -> tuple[GateReport, ...]:
    """Return every gate of an artefact. Raises UsageError for a gate that lacks ground truth."""
    limits = {name: limit for name, limit in _limits(evidence).items() if name in GATES}
    gates = [conversion(evidence), *(GATES[name](evidence, limits[name]) for name in limits)]
    return tuple(gates if accepted is None else [*gates, baseline(evidence, accepted)])


def _limits(evidence: CellEvidence) -> dict[str, Any]:
    """Return the gates that are set; without one of the accuracy, `kedge drift`'s own."""
    limits = evidence.cell.gates.limits
    if evidence.drift is None or {"max_drop", "min_agreement"} & limits.keys():
        return limits
    default = default_limits(evidence.drift.images if evidence.drift.top1 else 0)
    return {name: limit for name, limit in vars(default).items() if limit is not None} | limits


def conversion(evidence: CellEvidence) -> GateReport:
    """Report the converter's own check."""
    found = evidence.conversion
    if found.reasons:
        return failed(found.reasons)
    checked = counted(found.images, "image")
    return GateReport("conversion", "PASS", f"passed the converter's own check on {checked}")


def failed(reasons: Sequence[str]) -> GateReport:
    """Return the gate of a conversion that made no file or was rejected."""
    return GateReport("conversion", "FAIL", "; ".join(reasons))


def _max_drop(evidence: CellEvidence, limit: float) -> GateReport:
    cell, drift = evidence.cell, _drift(evidence)
    if drift.agreement_by == "labels":
        raise UsageError(
            f"{cell.name}: max_drop needs one true class of an image, and the answers are sets of "
            "independent classes: use min_agreement"
        )
    if drift.top1 is None:
        raise UsageError(
            f"{cell.name}: max_drop needs the ground truth of {cell.model.images}: "
            "give truth, or use min_agreement"
        )
    return accuracy_gate(drift_gates.max_drop(limit, drift.top1.pairs), drift.images)


def _min_agreement(evidence: CellEvidence, limit: float) -> GateReport:
    drift = _drift(evidence)
    agreed = drift.images - drift.flips.count
    return accuracy_gate(drift_gates.min_agreement(limit, agreed, drift.images), drift.images)


def _drift(evidence: CellEvidence) -> Drift:
    if evidence.drift is None:
        raise AssertionError("cells.groups refuses gates of the accuracy without images")
    return evidence.drift


def _max_bytes(evidence: CellEvidence, limit: int) -> GateReport:
    verdict: Verdict = "PASS" if evidence.conversion.bytes <= limit else "FAIL"
    message = f"{evidence.conversion.bytes} bytes, at most {limit}"
    return GateReport("max_bytes", verdict, message, limit, exactly(evidence.conversion.bytes))


def _max_latency_ratio(evidence: CellEvidence, limit: float) -> GateReport:
    ratio = evidence.latency_ratio
    if ratio is None:
        message = (
            f"{evidence.cell.float32} is missing: there is no float32 artefact to compare with"
        )
        return GateReport("max_latency_ratio", "FAIL", message, limit)
    message = (
        f"{tables.times(ratio.value)} the time of float32 "
        f"({ratio.low:.2f} to {ratio.high:.2f}), at most {tables.times(limit)}"
    )
    verdict = drift_gates.at_most(ratio, limit)
    if verdict == "INCONCLUSIVE":
        message += "; the next run times it again: stop other programs on this machine"
    return GateReport("max_latency_ratio", verdict, message, limit, ratio)


def _device(evidence: CellEvidence, name: str) -> GateReport:
    findings = evidence.findings
    problems = [f"{what}: {f.detail}" for what, f in findings.items() if f.state == "problem"]
    if problems:
        return GateReport("device", "FAIL", f"doesn't fit {name}: {'; '.join(problems)}")
    operators = f": {findings['operators'].detail}" if "operators" in findings else ""
    return GateReport("device", "PASS", f"fits {name}{operators}")


GATES: dict[str, Callable[[CellEvidence, Any], GateReport]] = {
    "max_drop": _max_drop,
    "min_agreement": _min_agreement,
    "max_bytes": _max_bytes,
    "max_latency_ratio": _max_latency_ratio,
    "device": _device,
}


def baseline(evidence: CellEvidence, accepted: Accepted) -> GateReport:
    """Compare an artefact with the accepted one: FAIL where it is worse beyond the interval."""
    if evidence.conversion.digest == accepted.digest:
        return GateReport("baseline", "PASS", "the accepted artefact")
    if worse := list(_worse(evidence, accepted)):
        message = f"worse than the accepted artefact: {'; '.join(worse)}"
        return GateReport("baseline", "FAIL", message)
    message = "differs from the accepted artefact, not significantly worse"
    return GateReport("baseline", "PASS", message)


def _worse(evidence: CellEvidence, accepted: Accepted) -> Iterator[str]:
    drift = evidence.drift
    if drift and drift.top1 and accepted.drop is not None and drift.top1.drop.low > accepted.drop:
        yield f"top-1 drop {drop_interval(drift.top1.drop)}, accepted {points(accepted.drop)}"
    if drift and accepted.agreement is not None and drift.agreement.high < accepted.agreement:
        yield f"agreement {share_interval(drift.agreement)}, accepted {percent(accepted.agreement)}"


def compared(evidence: CellEvidence, accepted: Accepted) -> Baseline:
    """Return the baseline of a report."""
    changed = evidence.conversion.digest != accepted.digest
    return Baseline(accepted.digest, accepted.bytes, changed, accepted.drop, accepted.agreement)
