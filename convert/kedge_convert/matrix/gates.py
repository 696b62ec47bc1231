"""What is asked of an artefact, judged: a function a gate, under the gate's name in `kedge.toml`.

Accuracy is judged as `kedge drift` does it, on the bound of the interval.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

from kedge_convert.drift.layers import Localisation
from kedge_convert.matrix import figures, record
from kedge_convert.matrix.cache import Entry
from kedge_convert.matrix.cells import Cell
from kedge_convert.matrix.lock import Accepted
from kedge_convert.matrix.record import Baseline, GateReport
from kedge_runtime.checks.hardware import Finding
from kedge_runtime.drift import gates as drift_gates
from kedge_runtime.drift.gates import Estimate, Verdict
from kedge_runtime.drift.report import Drift
from kedge_runtime.drift.summary import WITH_LABELS, WITHOUT_LABELS
from kedge_runtime.errors import UsageError

# Two medians, each within its interval with this probability, are both so with 95 %.
LEVEL = 0.975


@dataclass(frozen=True)
class Judgement:
    """What is known of a cell's artefact.

    `entry`: its conversion; `ratio`: of its latency to float32's, None where that isn't gated or
    there is no float32 artefact; `findings`: a device's, by name.
    """

    cell: Cell
    entry: Entry
    drift: Drift | None = None
    by_layer: Localisation | None = None
    ratio: Estimate | None = None
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether its drift is known, if there are pictures to measure it on."""
        return self.drift is not None or not self.cell.model.images

    @property
    def digest(self) -> str:
        """The artefact's seal."""
        return str(self.entry.facts["digest"])

    @property
    def bytes(self) -> int:
        """The artefact's size."""
        return int(self.entry.facts["bytes"])


def judge(found: Judgement, accepted: Accepted | None) -> tuple[GateReport, ...]:
    """Return every gate of an artefact. Raises UsageError for one that can't be judged."""
    asked = {name: limit for name, limit in _asked(found).items() if name in GATES}
    judged = [conversion(found), *(GATES[name](found, limit) for name, limit in asked.items())]
    return tuple(judged if accepted is None else [*judged, baseline(found, accepted)])


def _asked(found: Judgement) -> dict[str, Any]:
    """Return the gates that are given; an accuracy that isn't limited has drift's own limit."""
    given = found.cell.gates.given
    if found.drift is None or {"max_drop", "min_agreement"} & given.keys():
        return given
    usual = WITHOUT_LABELS if found.drift.top1 is None else WITH_LABELS
    return {name: limit for name, limit in vars(usual).items() if limit is not None} | given


def conversion(found: Judgement) -> GateReport:
    """Say what the converter's own check said."""
    facts = found.entry.facts
    if reasons := facts["reasons"]:
        return failed(reasons)
    checked = figures.pictures(facts["images"])
    return GateReport("conversion", "PASS", f"passed the converter's own check on {checked}")


def failed(reasons: Sequence[str]) -> GateReport:
    """Return the gate of a conversion that gave nothing, or nothing good."""
    return GateReport("conversion", "FAIL", "; ".join(reasons))


def _max_drop(found: Judgement, limit: float) -> GateReport:
    drift = _drift(found)
    if drift.agreement_by == "labels":
        raise UsageError(
            f"{found.cell.name}: max_drop needs one true class of a picture, and the answers are "
            "sets of independent ones: gate with min_agreement"
        )
    if drift.top1 is None:
        raise UsageError(
            f"{found.cell.name}: max_drop needs the true classes of {found.cell.model.images}: "
            "give truth, or gate with min_agreement"
        )
    gate = drift_gates.max_drop(limit, drift.top1.pairs)
    least = figures.points(-limit)
    return _of(gate, f"top-1 {figures.change(gate.value)}, at worst {least}")


def _min_agreement(found: Judgement, limit: float) -> GateReport:
    drift = _drift(found)
    agreed = drift.pictures - drift.flips.count
    gate = drift_gates.min_agreement(limit, agreed, drift.pictures)
    return _of(gate, f"agreement {figures.share(gate.value)}, at least {figures.percent(limit)}")


def _drift(found: Judgement) -> Drift:
    if found.drift is None:
        raise AssertionError("a gate of the accuracy without pictures passed the matrix")
    return found.drift


def _of(gate: drift_gates.Gate, said: str) -> GateReport:
    if gate.verdict == "INCONCLUSIVE":
        more = f"about {gate.images} pictures" if gate.images else "no number of pictures"
        said += f"; {more} would decide"
    return GateReport(gate.name, gate.verdict, said, gate.limit, gate.value, gate.images)


def _max_bytes(found: Judgement, limit: int) -> GateReport:
    verdict: Verdict = "PASS" if found.bytes <= limit else "FAIL"
    said = f"{found.bytes} bytes, at most {limit}"
    return GateReport("max_bytes", verdict, said, limit, exactly(found.bytes))


def exactly(value: float) -> Estimate:
    """Return a figure that no chance has a part in."""
    return Estimate(value, value, value)


def _max_latency_ratio(found: Judgement, limit: float) -> GateReport:
    ratio = found.ratio
    if ratio is None:
        said = f"{found.cell.float32} wasn't made: there is no float32 artefact to compare with"
        return GateReport("max_latency_ratio", "FAIL", said, limit)
    said = (
        f"{figures.times(ratio.value)} the time of float32 "
        f"({ratio.low:.2f} .. {ratio.high:.2f}), at most {figures.times(limit)}"
    )
    verdict = within(ratio, limit)
    if verdict == "INCONCLUSIVE":
        said += "; the next run times it again: end what else keeps this machine busy"
    return GateReport("max_latency_ratio", verdict, said, limit, ratio)


def within(value: Estimate, limit: float) -> Verdict:
    """Judge a figure that may be `limit` at most on its interval."""
    if value.high <= limit:
        return "PASS"
    return "FAIL" if value.low > limit else "INCONCLUSIVE"


def _device(found: Judgement, name: str) -> GateReport:
    findings = found.findings
    wrong = [f"{what}: {f.detail}" for what, f in findings.items() if f.state == "problem"]
    if wrong:
        return GateReport("device", "FAIL", f"doesn't fit {name}: {'; '.join(wrong)}")
    operators = f": {findings['operators'].detail}" if "operators" in findings else ""
    return GateReport("device", "PASS", f"fits {name}{operators}")


GATES: dict[str, Callable[[Judgement, Any], GateReport]] = {
    "max_drop": _max_drop,
    "min_agreement": _min_agreement,
    "max_bytes": _max_bytes,
    "max_latency_ratio": _max_latency_ratio,
    "device": _device,
}


def baseline(found: Judgement, accepted: Accepted) -> GateReport:
    """Hold an artefact against the accepted one: FAIL where it is worse beyond the interval."""
    if found.digest == accepted.digest:
        return GateReport("baseline", "PASS", "the accepted artefact")
    if worse := list(_worse(found, accepted)):
        return GateReport(
            "baseline", "FAIL", f"worse than the accepted artefact: {'; '.join(worse)}"
        )
    return GateReport(
        "baseline", "PASS", "differs from the accepted artefact, and isn't worse beyond chance"
    )


def _worse(found: Judgement, accepted: Accepted) -> Iterator[str]:
    drift = found.drift
    if drift and drift.top1 and accepted.drop is not None and drift.top1.drop.low > accepted.drop:
        was = figures.points(-accepted.drop)
        yield f"top-1 {figures.change(drift.top1.drop)}, accepted was {was}"
    if drift and accepted.agreement is not None and drift.agreement.high < accepted.agreement:
        was = figures.percent(accepted.agreement)
        yield f"agreement {figures.share(drift.agreement)}, accepted was {was}"


def against(found: Judgement, accepted: Accepted) -> Baseline:
    """Return the baseline as reports have it."""
    changed = found.digest != accepted.digest
    return record.Baseline(
        accepted.digest, accepted.bytes, changed, accepted.drop, accepted.agreement
    )


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> Estimate:
    """Return the ratio of two medians, with an interval that covers it in 95 % of cases or more.

    Each median has its distribution-free interval, between two order statistics (Conover 1999,
    Practical Nonparametric Statistics, 3.2); both hold at once by Bonferroni's inequality.
    """
    (low, middle, high), (least, usual, most) = _median(seconds), _median(reference)
    return Estimate(middle / usual, low / most, high / least)


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower end, the median and the upper end."""
    ordered, n = sorted(values), len(values)
    # The r-th smallest lies above the median with P(Binomial(n, 1/2) < r).
    below, r = 1 / 2**n, 0
    while below <= (1 - LEVEL) / 2:
        r += 1
        below += comb(n, r) / 2**n
    rank = max(r, 1) - 1
    return ordered[rank], (ordered[(n - 1) // 2] + ordered[n // 2]) / 2, ordered[n - 1 - rank]
