"""Gather evidence against "nothing has changed", frame by frame, in bounded memory.

There is a test for each statistic and one for each class. They share an error rate each: the first
ones raise alarms, those of the classes notices, as another mix of classes is no fault.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Floats, Indices
from kedge_runtime.field import martingale
from kedge_runtime.field.martingale import BETS, POWERS, Wealth, ranks
from kedge_runtime.field.measure import STATISTICS
from kedge_runtime.field.sketch import Sketch

Kind = Literal["alarm", "mix", "over"]

# The chance that a stream without a fault ever raises an alarm, and that it ever raises a notice.
ERROR = 0.001
# The frames that are remembered: for what changed, for the accuracy, and for those to look at.
MEMORY = 256
# An alarm is over when so many frames in a row look like calibration: their mean score is within
# TOLERANCE (its standard deviation is .1), and so is their spread.
RECOVERY = 100
TOLERANCE = 0.15


@dataclass(frozen=True)
class Frame:
    """What is measured of one frame.

    `values`: float32 [statistics]. `predicted`: the best output. `hits`: all outputs that it has;
    of exclusive classes the best one. `time`: seconds since 1970, or any other order.
    """

    values: Floats
    predicted: int
    hits: tuple[int, ...]
    time: float


@dataclass(frozen=True)
class Turn:
    """A test whose state turned: an `alarm`, a notice about the `mix`, or an alarm that is `over`.

    `test`: the statistic, or the output. `since`: the frame at which it began, by estimate.
    """

    kind: Kind
    test: int
    since: int


@dataclass
class Memory:
    """The last frames, as rings of MEMORY rows; row `frame % MEMORY` is of that frame.

    `normal`: the normal scores, [MEMORY, statistics]. `values`: the same statistics as measured.
    `predicted`, `times`: [MEMORY].
    """

    normal: Floats = field(default_factory=lambda: np.zeros((MEMORY, len(STATISTICS)), np.float32))
    values: Floats = field(default_factory=lambda: np.zeros((MEMORY, len(STATISTICS)), np.float32))
    predicted: Indices = field(default_factory=lambda: np.full(MEMORY, -1, np.int64))
    times: Doubles = field(default_factory=lambda: np.zeros(MEMORY))

    def put(self, frame: int, normal: Doubles, seen: Frame) -> None:
        """Remember a frame in the place of the oldest one."""
        at = frame % MEMORY
        self.normal[at], self.values[at] = normal, seen.values
        self.predicted[at], self.times[at] = seen.predicted, seen.time


class Evidence:
    """The state of all tests of one stream.

    `frames`: how many were counted. `counts`: calibration's and the stream's own, as in the sketch.
    `classes`: how often each output came. `began`: [statistics], the frame at which a statistic's
    alarm began, -1 without one; `raised`: the frame of the alarm itself.
    """

    def __init__(self, sketch: Sketch, seed: int = 0) -> None:
        """Begin with calibration alone; `seed`: of the random ranks of equal values."""
        rows, outputs = len(STATISTICS), len(sketch.classes)
        self.sketch, self.seed, self.frames = sketch, seed, 0
        self.counts = sketch.counts.astype(np.float64)
        self.classes = sketch.classes.astype(np.float64)
        self.images = float(sketch.images)
        self.tests, self.mix = Wealth.none(rows, BETS), Wealth.none(outputs, len(POWERS))
        self.began, self.raised = np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
        self.memory = Memory()
        self.reseed()

    def reseed(self) -> None:
        """Draw the random numbers of the frames that follow, independent of all earlier ones."""
        self._random = np.random.default_rng((self.seed, self.frames))

    def add(self, seen: Frame) -> list[Turn]:
        """Count a frame; return the tests whose state turned with it."""
        normal = self._bet(seen)
        self.memory.put(self.frames, normal, seen)
        turns = [*self._alarms(), *self._recoveries(), *self._mixed(seen)]
        self.frames += 1
        return turns

    def remembered(self, since: int) -> Indices:
        """Return the frames from `since` on that are still remembered, the oldest first."""
        return np.arange(max(since, self.frames - MEMORY, 0), self.frames)

    @property
    def alarmed(self) -> Flags:
        """Which statistics have an alarm, bool [statistics]."""
        return np.asarray(self.began >= 0)

    def _bet(self, seen: Frame) -> Doubles:
        """Bet on a frame's ranks, then count it among the others; return the normal scores."""
        group, bins = self.sketch.group(seen.predicted), self.sketch.bins(seen.values)
        rows, known = np.arange(len(bins)), self.counts[group]
        upto = known.cumsum(axis=1)
        equal = known[rows, bins]
        p = ranks(upto[rows, bins] - equal, equal, upto[:, -1], self._random.random(len(bins)))
        normal = martingale.scores(p)
        self.tests.bet(martingale.shift_bets(normal), self.frames)
        # Frames of a fault are no reference: without this an alarm would wear off by itself.
        known[rows, bins] += ~self.alarmed
        return normal

    def _alarms(self) -> list[Turn]:
        due = (self.tests.totals() >= len(STATISTICS) / ERROR) & ~self.alarmed
        turns = [
            Turn("alarm", test, self.tests.began(test)) for test in np.flatnonzero(due).tolist()
        ]
        for turn in turns:
            self.began[turn.test], self.raised[turn.test] = turn.since, self.frames
        return turns

    def _recoveries(self) -> list[Turn]:
        old = self.alarmed & (self.frames - self.raised >= RECOVERY)
        if not old.any():
            return []
        last = np.arange(self.frames - RECOVERY + 1, self.frames + 1) % MEMORY
        normal = self.memory.normal[last].astype(np.float64)
        near = np.abs(normal.mean(axis=0)) <= TOLERANCE
        near &= np.abs((normal**2).mean(axis=0) - 1) <= 2 * TOLERANCE
        return [self._recovered(test) for test in np.flatnonzero(old & near).tolist()]

    def _recovered(self, test: int) -> Turn:
        self.began[test] = self.raised[test] = -1
        self.tests.withdraw(test)
        return Turn("over", test, self.frames - RECOVERY + 1)

    def _mixed(self, seen: Frame) -> list[Turn]:
        """Bet that a class comes too often; return the classes that do."""
        hits = np.zeros(len(self.classes), bool)
        hits[list(seen.hits)] = True
        below = np.where(hits, 0.0, self.classes)
        equal = np.where(hits, self.classes, self.images - self.classes)
        p = ranks(below, equal, np.array(self.images), np.array(self._random.random()))
        self.mix.bet(martingale.power_bets(p), self.frames)
        self.classes += hits
        self.images += 1
        due = np.flatnonzero(self.mix.totals() >= len(hits) / ERROR).tolist()
        turns = [Turn("mix", test, self.mix.began(test)) for test in due]
        for turn in turns:
            self.mix.withdraw(turn.test)
        return turns
