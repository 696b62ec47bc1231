"""Forecast an integer artefact's loss of accuracy from a few images, and hold it to a budget.

Few images tell little by counting: 33 can't tell 98 % from 99. Their logits tell more. The noise
that quantisation adds to the distances between classes of the selection images, and the float
model's margins on all calibration images, give the chance that each image's answer changes. The
noise is taken as it is, smoothed: its tails are heavier than a Gaussian's where a few images are
noisier than others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Doubles, Floats
from kedge_runtime.artefact.contract import Output
from kedge_runtime.classify.results import limits

RIVALS = 4  # classes behind the best whose distance to it is looked at
MOST_VALUES = 512  # of noise; their quantiles stand for more
# Standard errors that a forecast keeps from the limit: the check confirms five of six.
CAUTION = 1.0


@dataclass(frozen=True)
class Budget:
    """The most accuracy lost and the least agreement, shares of images; None: no limit."""

    max_drop: float | None = None
    min_agreement: float | None = None

    def __bool__(self) -> bool:
        """Whether there is a limit that something could miss."""
        return self.max_drop is not None or bool(self.min_agreement)


@dataclass(frozen=True)
class Margins:
    """Distances of the float model's logits from another answer, on the calibration images.

    `best`: best minus second, [n]; of independent classes the distance of each label's logit to its
    threshold's, [n, labels], any of which changes the answer.
    `lose`: the same, of those that are right; `gain`: best minus the true class, of those that are
    wrong. Both None without true classes.
    """

    best: Doubles
    lose: Doubles | None = None
    gain: Doubles | None = None


def margins(logits: Floats, classes: Sequence[int] | None) -> Margins:
    """Return the margins of logits [n, classes], with the true classes, [n], where known."""
    values = logits.astype(np.float64)
    ranked = np.sort(values, axis=1)
    best = ranked[:, -1] - ranked[:, -2]
    if classes is None:
        return Margins(best)
    true = np.asarray(classes)
    right = values.argmax(axis=1) == true
    gap = ranked[:, -1] - values[np.arange(len(values)), true]
    return Margins(best, best[right], gap[~right])


def label_margins(outputs: Floats, output: Output) -> Margins:
    """Return the margins of independent classes, of the model's numbers, [n, labels].

    The true sets are never known.
    """
    values = limits(output.thresholds, output.label_offset).astype(np.float64)
    if output.kind == "logits":
        with np.errstate(divide="ignore"):
            values = output.temperature * np.log(values / (1 - values))
    return Margins(np.abs(outputs.astype(np.float64) - values))


@dataclass(frozen=True)
class LogitNoise:
    """Errors of distances between logits, [n], either sign as likely; one larger crosses it."""

    values: Doubles

    @property
    def spread(self) -> float:
        """Their root mean square."""
        return float(np.sqrt(np.square(self.values).mean()))

    def crossing(self, distances: Doubles) -> Doubles:
        """Return the chance that the noise crosses each of some distances, [m].

        A logistic kernel of Silverman's width (1986, equation 3.31) smooths the values, which are
        drawn together so that their variance stays.
        """
        if not self.spread:
            return np.zeros(len(distances))
        values = np.concatenate([self.values, -self.values])
        share = len(self.values) ** -0.2
        if len(values) > MOST_VALUES:
            values = np.quantile(values, (np.arange(MOST_VALUES) + 0.5) / MOST_VALUES)
        whole = math.hypot(1, share)
        scale = self.spread * share / whole * math.sqrt(3) / math.pi
        beyond = (distances[:, None] + values / whole) / scale
        return np.asarray((1 / (1 + np.exp(np.clip(beyond, -500, 500)))).mean(axis=1))


def label_noise(reference: Floats, candidate: Floats) -> LogitNoise:
    """Return the noise of single numbers, both [n, labels]."""
    return LogitNoise((candidate - reference).astype(np.float64).ravel())


def noise(reference: Floats, candidate: Floats) -> LogitNoise:
    """Return the noise between the best and its rivals, in logits. Both [n, classes]."""
    order = np.argsort(-reference, axis=1, kind="stable")[:, : RIVALS + 1]
    errors = np.take_along_axis(candidate - reference, order, axis=1).astype(np.float64)
    return LogitNoise((errors[:, :1] - errors[:, 1:]).ravel())


@dataclass(frozen=True)
class DropForecast:
    """Expected shares on other images: of answers that change, and of accuracy lost.

    `changed` is 1 - agreement; `lost` and `gained` count true answers (None without classes).
    """

    changed: float
    lost: float | None = None
    gained: float | None = None

    def holds(self, budget: Budget, images: int) -> bool:
        """Whether the budget is likely to hold when it is checked on so many images."""
        if budget.min_agreement is not None and self._agreement(images) < budget.min_agreement:
            return False
        return budget.max_drop is None or self._drop(images) <= budget.max_drop

    def _agreement(self, images: int) -> float:
        error = np.sqrt(self.changed * (1 - self.changed) / images)
        return float(1 - self.changed - CAUTION * error)

    def _drop(self, images: int) -> float:
        """Without classes every changed answer counts: accuracy can't lose more than those."""
        if self.lost is None or self.gained is None:
            return 1 - self._agreement(images)
        error = np.sqrt((self.lost + self.gained) / images)
        return float(self.lost - self.gained + CAUTION * error)


def forecast(reference: Margins, noise: LogitNoise) -> DropForecast:
    """Return the effect of noise on images of these margins."""
    count = len(reference.best)
    if reference.lose is None or reference.gain is None:
        return DropForecast(_crossed(reference.best, noise) / count)
    lost, gained = (_crossed(each, noise) / count for each in (reference.lose, reference.gain))
    return DropForecast(_crossed(reference.best, noise) / count, lost, gained)


def _crossed(distances: Doubles, noise: LogitNoise) -> float:
    """Return the number of images, [n] or [n, labels], of which the noise crosses a distance."""
    if distances.ndim == 1:
        return float(noise.crossing(distances).sum())
    return float(sum(1 - np.prod(1 - noise.crossing(row)) for row in distances))
