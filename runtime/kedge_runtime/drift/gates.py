"""Gates: what an artefact may lose, tested on the bound of an interval and not on the estimate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kedge_runtime.arrays import Flags, Indices
from kedge_runtime.drift import intervals
from kedge_runtime.drift.intervals import drop_differs, paired_drop, share_differs, wilson

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
GateName = Literal["max_drop", "min_agreement"]
# The first of these that any gate or artefact has is the verdict on all.
WORST: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
EXIT_CODES: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Pairs:
    """What both sides got right: counts of pictures. `lost`: only the original, `gained`: only
    the artefact.
    """

    both: int
    lost: int
    gained: int
    neither: int

    @property
    def total(self) -> int:
        """The number of pictures."""
        return self.both + self.lost + self.gained + self.neither

    @property
    def drop(self) -> Estimate:
        """Accuracy of the original minus the artefact's, -1..1."""
        low, high = paired_drop(self.lost, self.gained, self.total)
        return Estimate((self.lost - self.gained) / self.total, float(low), float(high))


def share(count: int, total: int) -> Estimate:
    """Return a share and its interval; `total` >= 1."""
    low, high = wilson(count, total)
    return Estimate(count / total, float(low), float(high))


@dataclass(frozen=True)
class Gate:
    """A gate with its figure. `verdict`: PASS when the whole interval holds the limit, FAIL when
    the whole interval misses it.

    `images`: how many pictures decide with a probability of 90 %; `images_as_measured`: how many
    would if the value were exact. None where no number does, and both when these pictures decide.
    """

    name: GateName
    limit: float
    value: Estimate
    verdict: Verdict
    images: int | None = None
    images_as_measured: int | None = None


def max_drop(limit: float, pairs: Pairs) -> Gate:
    """Judge the drop: at most `limit`, as a share."""

    def decides(counts: Indices, total: int) -> Flags:
        return drop_differs(counts[:, 0], counts[:, 1], total, limit)

    drop = pairs.drop
    if drop.high <= limit:
        return Gate("max_drop", limit, drop, "PASS")
    if drop.low > limit:
        return Gate("max_drop", limit, drop, "FAIL")
    counts = (pairs.lost, pairs.gained, pairs.both + pairs.neither)
    return _open(Gate("max_drop", limit, drop, "INCONCLUSIVE"), counts, decides)


def min_agreement(limit: float, agreed: int, total: int) -> Gate:
    """Judge the share of pictures whose best class is the original's: at least `limit`."""

    def decides(counts: Indices, total: int) -> Flags:
        return share_differs(counts[:, 0], total, limit)

    value = share(agreed, total)
    if value.low >= limit:
        return Gate("min_agreement", limit, value, "PASS")
    if value.high < limit:
        return Gate("min_agreement", limit, value, "FAIL")
    counts = (agreed, total - agreed)
    return _open(Gate("min_agreement", limit, value, "INCONCLUSIVE"), counts, decides)


def _open(gate: Gate, counts: Sequence[int], decides: intervals.Decides) -> Gate:
    needed = intervals.images(counts, decides)
    naive = intervals.images_as_measured(counts, decides)
    return replace(gate, images=needed, images_as_measured=naive)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on several gates or artefacts: FAIL before INCONCLUSIVE before PASS."""
    return next(verdict for verdict in WORST if verdict in verdicts)
