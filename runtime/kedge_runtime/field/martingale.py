"""Bet against "nothing has changed": a test that may be looked at after every frame, for ever.

- A new value's rank among all earlier ones, calibration included, is a uniform number p if the
  values are exchangeable, and these numbers are independent (conformal test: Vovk, Gammerman and
  Shafer 2005, Algorithmic Learning in a Random World, theorem 8.2). No distribution is assumed, and
  the small number of calibration images costs power only, never validity.
- Among the values of one group only (the same predicted class) this holds too (Mondrian conformal,
  ibid. 4.5). So another mix of classes moves no test but that of the mix.
- A bet of density f(p), whose integral is 1, multiplies the wealth by f(p). Wealth is then a
  nonnegative martingale, and the chance that it ever reaches c times its start is at most 1 / c
  (Ville 1939; Vovk and Wang 2021, E-values, doi:10.1214/20-AOS2020).
- A fault may begin at any time. So the stake of 1 is paid in by parts, one part a frame, and each
  part is bet from its frame on: a mixture over the start, which is a martingale too (Shin, Ramdas
  and Rinaldo 2022, E-detectors, arXiv:2203.03532; here with a prior that adds up to 1, so that the
  bound is for the whole life and not for a mean time between alarms).
- Many tests share one error rate by a union: each has to reach tests / error.

Assumed: of the frames that are counted, none is more likely than another to come at its place,
within a predicted class. Neighbouring frames of a video break this, so they are thinned first
(thinning.py).
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from kedge_runtime.arrays import Doubles

_NORMAL = NormalDist()
_EDGE = 1e-9  # numbers closer to 0 or 1 bet as these do

# Bets on a shift, in standard deviations of the normal score of p, and on a spread, as its factor.
SHIFTS = np.array((-1.5, -0.8, -0.4, 0.4, 0.8, 1.5))
SPREADS = np.array((0.6, 1.6))
BETS = len(SHIFTS) + len(SPREADS)
# Exponents of bets on a class that comes too often: f(p) = k * p ** (k - 1), Vovk 2005, 7.1.
POWERS = np.array((0.3, 0.6))

# The part of the stake that is still to be paid in after t frames: (1 + t / FRAMES) ** -SLOW.
_FRAMES, _SLOW = 100.0, 0.2


def paid(frame: int) -> float:
    """Return the part of the stake that is paid in at a frame, counted from 0. All add up to 1."""
    before, after = ((1 + t / _FRAMES) ** -_SLOW for t in (frame, frame + 1))
    return float(before - after)


def ranks(below: Doubles, equal: Doubles, total: Doubles, random: Doubles) -> Doubles:
    """Return the conformal p of new values: their randomised rank, 0..1.

    `below`, `equal`: the number of earlier values that are smaller and in the same bin, of `total`;
    `random`: uniform numbers.
    """
    return np.asarray((below + random * (equal + 1)) / (total + 1))


def scores(p: Doubles) -> Doubles:
    """Return the normal scores of uniform numbers: standard normal ones, of the same shape."""
    inside = np.clip(p, _EDGE, 1 - _EDGE).tolist()
    return np.array([_NORMAL.inv_cdf(each) for each in inside])


def shift_bets(normal: Doubles) -> Doubles:
    """Return the factors of bets on normal scores, [n, BETS]: density ratios to the normal law."""
    z = normal[:, None]
    shifted = SHIFTS * z - SHIFTS**2 / 2
    spread = -np.log(SPREADS) - z**2 / 2 * (SPREADS**-2 - 1)
    return np.asarray(np.exp(np.concatenate([shifted, spread], axis=1)))


def power_bets(p: Doubles) -> Doubles:
    """Return the factors of bets on small p, [n, len(POWERS)]."""
    logs = np.log(np.maximum(p, _EDGE))[:, None]
    return np.asarray(POWERS * np.exp(logs * (POWERS - 1)))


@dataclass
class Wealth:
    """The wealth of several tests, each with several bets of equal stakes.

    `money`: [tests, bets]. `gain`: the log of each bet's growth since `start`, the frame at which
    it was last nothing (Page 1954, CUSUM): an estimate of when the change began.
    """

    money: Doubles
    gain: Doubles
    start: Doubles

    @classmethod
    def none(cls, tests: int, bets: int) -> "Wealth":
        """Return tests that have not bet yet."""
        return cls(*(np.zeros((tests, bets)) for _ in range(3)))

    def bet(self, factors: Doubles, frame: int) -> None:
        """Pay in the stake of a frame, and multiply by the factors, [tests, bets]."""
        self.money += paid(frame) / self.money.shape[1]
        self.money *= factors
        lost = self.gain <= 0
        self.gain[lost] = 0.0
        self.start[lost] = frame
        self.gain += np.log(factors)

    def totals(self) -> Doubles:
        """Return each test's wealth, [tests]; it began with 1."""
        return np.asarray(self.money.sum(axis=1))

    def began(self, test: int) -> int:
        """Return the frame at which a test's change began, by its richest bet."""
        return int(self.start[test, self.money[test].argmax()])

    def withdraw(self, test: int) -> None:
        """Take a test's wealth out after an alarm: it goes on with what is still to be paid in."""
        self.money[test] = 0.0
        self.gain[test] = 0.0
