"""Simulate streams of `field.py` that are exchangeable with their calibration."""

import numpy as np

from kedge_runtime.field import martingale
from kedge_runtime.field.evidence import ERROR
from kedge_runtime.field.measure import NAMES
from kedge_runtime.field.sketch import BINS

CALIBRATION = 300


def simulated(streams: int = 200, frames: int = 5000) -> dict[str, int]:
    """Return how many alarms streams raise whose frames come from where calibration came from.

    Each has statistics of its own, CALIBRATION values of each, and ranks in bins as on a device;
    the size of a change is not asked for, which only leaves alarms out.
    """
    rng, tests = np.random.default_rng(0), streams * len(NAMES)
    edges = np.quantile(rng.normal(size=(CALIBRATION, tests)), np.linspace(0, 1, BINS + 1), axis=0)
    values = rng.normal(size=(CALIBRATION, tests))
    counts = np.zeros((tests, BINS))
    for row in values:
        counts[np.arange(tests), (edges[1:-1] <= row).sum(axis=0)] += 1
    wealth, highest = martingale.Wealth(tests, martingale.BETS), np.zeros(tests)
    for at in range(frames):
        bins = (edges[1:-1] <= rng.normal(size=tests)).sum(axis=0)
        upto, equal = counts.cumsum(axis=1), counts[np.arange(tests), bins]
        below, total = upto[np.arange(tests), bins] - equal, upto[:, -1]
        p = martingale.ranks(below, equal, total, rng.random(tests))
        wealth.bet(martingale.bets(martingale.scores(p)), at)
        highest = np.maximum(highest, wealth.money.sum(axis=1))
        counts[np.arange(tests), bins] += 1
    alarms = int((highest >= len(NAMES) / ERROR).sum())
    return {"streams": streams, "frames": frames, "alarms": alarms}
