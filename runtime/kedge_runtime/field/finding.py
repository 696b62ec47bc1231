"""Say what changed in words, how much accuracy it may cost, and which frames are worth a look."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Doubles, Indices
from kedge_runtime.artefact.contract import Label
from kedge_runtime.field.accuracy import AccuracyEstimate, estimate
from kedge_runtime.field.evidence import FieldTests, Turn
from kedge_runtime.field.measure import ANSWERS, STATISTICS, Statistic
from kedge_runtime.field.sketch import BINS, expected
from kedge_runtime.output import percent

LOOK = 5  # frames worth a look
# Standard deviations below which a change is one of the spread, not of the middle.
SHIFT = 0.25


@dataclass(frozen=True)
class FieldFinding:
    """What changed: an `alarm`, a notice about the `mix`, or an alarm that is `over`.

    `name`: the statistic or the class. `what`: in words. `since`: the frame at which it began, by
    estimate; `at`: the one at which it was noticed. `time`: of `since`. `shift`: in standard
    deviations of calibration; of a mix the share of frames with the class. `look`: the frames worth
    a look, the most unusual first.
    """

    kind: str
    name: str
    what: str
    since: int
    at: int
    time: float
    shift: float
    accuracy: AccuracyEstimate | None
    look: tuple[int, ...]

    def text(self, moment: str) -> str:
        """Return one sentence or two; `moment`: the time of `since` in words."""
        parts = [f"{self.what} since {moment}" if self.kind != "over" else self.what]
        if self.accuracy and self.kind == "alarm":
            parts.append(_lost(self.accuracy))
        return "; ".join(parts)


def _lost(accuracy: AccuracyEstimate) -> str:
    points = 100 * accuracy.lost
    if points < 1:
        return "no loss of accuracy by estimate"
    now = "" if accuracy.field is None else f" (to {percent(accuracy.field, 0)})"
    return f"about {points:.0f} points of accuracy lost by estimate{now}"


def describe(evidence: FieldTests, turn: Turn, labels: Sequence[Label]) -> FieldFinding:
    """Return a turn in words. `labels`: one for each output."""
    frames = evidence.remembered(turn.since)
    if turn.kind == "mix":
        return _mixed(evidence, turn, frames, labels[turn.test].name)
    memory, rows = evidence.memory, frames % len(evidence.memory.times)
    normal = memory.normal[rows, turn.test].astype(np.float64)
    shift, statistic = float(normal.mean()), STATISTICS[turn.test]
    return FieldFinding(
        turn.kind,
        statistic.name,
        _over(statistic) if turn.kind == "over" else _changed(evidence, turn.test, rows, shift),
        turn.since,
        evidence.frames - 1,
        float(memory.times[rows[0]]),
        shift,
        estimate(evidence.sketch, memory.values[rows]),
        _unusual(frames, normal * (np.sign(shift) if abs(shift) >= SHIFT else np.sign(normal))),
    )


def _unusual(frames: Indices, strange: Doubles) -> tuple[int, ...]:
    return tuple(frames[np.argsort(-strange, kind="stable")[:LOOK]].tolist())


def _subject(statistic: Statistic) -> str:
    return "answers are" if STATISTICS.index(statistic) < ANSWERS else "images are"


def _over(statistic: Statistic) -> str:
    return f"{_subject(statistic)} as in calibration again ({statistic.name})"


def _changed(evidence: FieldTests, test: int, rows: Indices, shift: float) -> str:
    """Return e.g. `images are darker than anything in calibration`."""
    statistic, edges = STATISTICS[test], evidence.sketch.edges[test]
    middle = float(np.median(evidence.memory.values[rows, test]))
    if abs(shift) < SHIFT:
        return f"{_subject(statistic)} more varied than in calibration ({statistic.name})"
    beyond = "anything in " if not edges[0] <= middle <= edges[-1] else ""
    words, cause = (
        (statistic.low, statistic.low_cause)
        if shift < 0
        else (statistic.high, statistic.high_cause)
    )
    usual = float(edges[BINS // 2])
    if statistic.mirrored and abs(middle + usual) < abs(middle - usual):
        cause = statistic.mirrored
    return f"{_subject(statistic)} {words} than {'in ' * (not beyond)}{beyond}calibration" + (
        f" ({cause})" if cause else ""
    )


def _mixed(evidence: FieldTests, turn: Turn, frames: Indices, label: str) -> FieldFinding:
    rows = frames % len(evidence.memory.times)
    hit = evidence.memory.predicted[rows] == turn.test
    share, usual = float(hit.mean()), expected(evidence.sketch, turn.test)
    return FieldFinding(
        "mix",
        label,
        f"class mix changed: {label} {percent(share, 0)}, expected {percent(usual, 0)}",
        turn.since,
        evidence.frames - 1,
        float(evidence.memory.times[rows[0]]),
        share,
        None,
        tuple(frames[hit][-LOOK:].tolist()),
    )
