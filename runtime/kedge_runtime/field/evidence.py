"""Gather evidence against "nothing has changed", frame by frame, in bounded memory.

There is a test for each statistic and one for each class. They share an error rate each: the first
ones raise alarms, those of the classes notices, as another mix of classes is no fault.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kedge_runtime.arrays import Doubles, Floats, Indices
from kedge_runtime.field import martingale
from kedge_runtime.field.martingale import BETS, ODDS, Wealth, is_large, onset, ranks
from kedge_runtime.field.measure import STATISTICS
from kedge_runtime.field.sketch import Sketch

Kind = Literal["alarm", "mix", "over"]

# The chance that a stream without a fault ever raises an alarm, and that it ever raises a notice.
ERROR = 0.01
# The frames that are remembered: for what changed, for the accuracy, and for those to look at.
MEMORY = 256
# An alarm is over when so many frames in a row look like calibration: their mean score is within
# TOLERANCE (its standard deviation is .1), and so is their spread.
RECOVERY = 100
TOLERANCE = 0.15
_ROWS = np.arange(len(STATISTICS))


@dataclass(frozen=True)
class MeasuredFrame:
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

    def put(self, frame: int, normal: Doubles, seen: MeasuredFrame) -> None:
        """Remember a frame in the place of the oldest one."""
        at = frame % MEMORY
        self.normal[at], self.values[at] = normal, seen.values
        self.predicted[at], self.times[at] = seen.predicted, seen.time


class FieldTests:
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
        self.classes, self._images = sketch.classes.astype(np.float64), sketch.images
        self.tests, self.mix = Wealth(rows, BETS), Wealth(outputs, len(ODDS))
        self.began, self.raised = np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
        self.memory = Memory()
        self.reseed()

    def reseed(self) -> None:
        """Draw the random numbers of the frames that follow, independent of all earlier ones."""
        self._random = np.random.default_rng((self.seed, self.frames))

    def add(self, seen: MeasuredFrame) -> list[Turn]:
        """Count a frame; return the tests whose state turned with it."""
        normal = self._bet(seen)
        self.memory.put(self.frames, normal, seen)
        turns = [*self._alarms(), *self._recoveries(), *self._mixed(seen)]
        self.frames += 1
        return turns

    def remembered(self, since: int) -> Indices:
        """Return the frames from `since` on that are still remembered, the oldest first."""
        return np.arange(max(since, self.frames - MEMORY, 0), self.frames)

    def _bet(self, seen: MeasuredFrame) -> Doubles:
        """Bet on a frame's ranks, then count it among the others; return the normal scores."""
        group, bins = self.sketch.group(seen.predicted), self.sketch.bins(seen.values)
        known = self.counts[group]
        upto, equal = known.cumsum(axis=1), known[_ROWS, bins]
        p = ranks(upto[_ROWS, bins] - equal, equal, upto[:, -1], self._random.random(len(bins)))
        normal, rested = martingale.scores(p), self.began >= 0
        factors = martingale.bets(normal)
        factors[rested] = 1.0
        self.tests.bet(factors, self.frames)
        # Frames of a fault are no reference: without this an alarm would wear off by itself.
        known[_ROWS, bins] += ~rested
        return normal

    def _alarms(self) -> list[Turn]:
        due = [test for test in self.tests.reached(ERROR) if self.began[test] < 0]
        turns = [Turn("alarm", test, self._since(test)) for test in due]
        large = [turn for turn in turns if is_large(self._scores(turn.test, turn.since))]
        for turn in large:
            self.began[turn.test], self.raised[turn.test] = turn.since, self.frames
        return large

    def _scores(self, test: int, since: int) -> Doubles:
        """Return the normal scores of a statistic in the remembered frames, the newest included."""
        frames = np.arange(max(since, self.frames - MEMORY + 1, 0), self.frames + 1)
        return np.asarray(self.memory.normal[frames % MEMORY, test], np.float64)

    def _since(self, test: int) -> int:
        """Return the frame at which the richest bet of a test began to pay."""
        normal, bet = self._scores(test, 0), self.tests.money[test].argmax()
        return self.frames + 1 - len(normal) + onset(martingale.bets(normal)[:, bet])

    def _recoveries(self) -> list[Turn]:
        if self.began.max() < 0:
            return []
        old = (self.began >= 0) & (self.frames - self.raised >= RECOVERY)
        last = np.arange(self.frames - RECOVERY + 1, self.frames + 1) % MEMORY
        normal = self.memory.normal[last].astype(np.float64)
        near = np.abs(normal.mean(axis=0)) <= TOLERANCE
        near &= np.abs((normal**2).mean(axis=0) - 1) <= 2 * TOLERANCE
        return [self._recovered(test) for test in np.flatnonzero(old & near).tolist()]

    def _recovered(self, test: int) -> Turn:
        self.began[test] = self.raised[test] = -1
        self.tests.withdraw(test)
        return Turn("over", test, self.frames - RECOVERY + 1)

    def _mixed(self, seen: MeasuredFrame) -> list[Turn]:
        """Bet that a class comes too often; return the classes that do."""
        hits = list(seen.hits)
        random, places = float(self._random.random()), self._images + self.frames + 1
        # A frame that has the class ranks before all that don't (`ranks`, for two values).
        p = (self.classes + random * (places - self.classes)) / places
        p[hits] = random * (self.classes[hits] + 1) / places
        shares = (self.classes + 1) / (places + 1)
        self.mix.bet(martingale.share_bets(p, shares), self.frames)
        self.classes[hits] += 1
        due = self.mix.reached(ERROR)
        turns = [Turn("mix", test, self._since_mixed(test)) for test in due]
        for turn in turns:
            self.mix.withdraw(turn.test)
        return turns

    def _since_mixed(self, output: int) -> int:
        """Return the frame from which on a class came more often than in calibration."""
        frames = np.arange(max(self.frames - MEMORY + 1, 0), self.frames + 1)
        hit = self.memory.predicted[frames % MEMORY] == output
        share = min(max(float(hit.mean()), 2 / MEMORY), 1 - 1 / MEMORY)
        usual = (self.sketch.classes[output] + 1) / (self.sketch.images + 2)
        odds = np.where(hit, share / usual, (1 - share) / (1 - min(usual, 1 - 1 / MEMORY)))
        return int(frames[onset(odds)])
