"""Judge what an artefact may lose by the bound of an interval, not by the estimate."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from kedge_runtime.arrays import Flags, Indices
from kedge_runtime.drift.statistics import (
    Decides,
    drop_differs,
    images_needed,
    paired_drop,
    share_differs,
    wilson,
)
from kedge_runtime.frozen import dataclass

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
GateName = Literal["max_drop", "min_agreement"]
# The worst first: it is the verdict on all gates or artefacts.
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
    """Count the images that both sides, one or none got right.

    `lost`: only the reference did; `gained`: only the artefact did.
    """

    both: int
    lost: int
    gained: int
    neither: int

    @property
    def total(self) -> int:
        """The number of images."""
        return self.both + self.lost + self.gained + self.neither

    @property
    def drop(self) -> Estimate:
        """The accuracy of the reference minus the artefact's, -1..1: positive is a loss."""
        low, high = paired_drop(self.lost, self.gained, self.total)
        return Estimate((self.lost - self.gained) / self.total, float(low), float(high))


def share(count: int, total: int) -> Estimate:
    """Return a share and its interval; `total` >= 1."""
    low, high = wilson(count, total)
    return Estimate(count / total, float(low), float(high))


@dataclass(frozen=True)
class Holds:
    """The strictest limits that some images pass, as shares; `max_drop`: None without ground truth.

    Each is the bound of its interval, rounded to a tenth of a point on the safe side.
    """

    max_drop: float | None
    min_agreement: float


_TENTHS = 1000  # of a point in 1
_SAFE = 1e-6  # more than reading the limit back can change it


def holds(drop: Estimate | None, agreement: Estimate) -> Holds:
    """Return the strictest limits that a drop and an agreement pass."""
    least = max(math.floor(agreement.low * _TENTHS - _SAFE), 0) / _TENTHS
    if drop is None:
        return Holds(None, least)
    return Holds(max(math.ceil(drop.high * _TENTHS + _SAFE), 0) / _TENTHS, least)


@dataclass(frozen=True)
class Gate:
    """A gate with its figure. `verdict`: PASS when the whole interval holds the limit, FAIL when
    the whole interval misses it.

    `images_needed`: how many images decide an INCONCLUSIVE gate with a probability of 90 %; None
    where no number does, and for the other verdicts.
    """

    name: GateName
    limit: float
    value: Estimate
    verdict: Verdict
    images_needed: int | None = None


def max_drop(limit: float, pairs: Pairs) -> Gate:
    """Judge the drop: at most `limit`, as a share."""

    def decides(counts: Indices, total: int) -> Flags:
        return drop_differs(counts[:, 0], counts[:, 1], total, limit)

    drop = pairs.drop
    gate = Gate("max_drop", limit, drop, at_most(drop, limit))
    return _with_images_needed(
        gate, (pairs.lost, pairs.gained, pairs.both + pairs.neither), decides
    )


def min_agreement(limit: float, agreed: int, total: int) -> Gate:
    """Judge the share of images with the reference's answer: at least `limit`."""

    def decides(counts: Indices, total: int) -> Flags:
        return share_differs(counts[:, 0], total, limit)

    value = share(agreed, total)
    gate = Gate("min_agreement", limit, value, at_least(value, limit))
    return _with_images_needed(gate, (agreed, total - agreed), decides)


def at_most(value: Estimate, limit: float) -> Verdict:
    """Judge a figure that may be `limit` at most by its interval."""
    if value.high <= limit:
        return "PASS"
    return "FAIL" if value.low > limit else "INCONCLUSIVE"


def at_least(value: Estimate, limit: float) -> Verdict:
    """Judge a figure that must be `limit` at least by its interval."""
    if value.low >= limit:
        return "PASS"
    return "FAIL" if value.high < limit else "INCONCLUSIVE"


def _with_images_needed(gate: Gate, counts: Sequence[int], decides: Decides) -> Gate:
    if gate.verdict != "INCONCLUSIVE":
        return gate
    return replace(gate, images_needed=images_needed(counts, decides))


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on several gates or artefacts: FAIL before INCONCLUSIVE before PASS."""
    return next(verdict for verdict in WORST if verdict in verdicts)
