"""Tell what label sets of a coverage cost: their sizes, and how many answers become unknown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.confidence import COVERAGES, Confidence
from kedge_runtime.confidence.binomial import coverage_ends
from kedge_runtime.confidence.conformal import rank

SHOWN = (80, 90, 95)  # percents
TOP = 5  # of `kedge classify --top`: a larger set is unknown


@dataclass(frozen=True)
class CoverageCost:
    """What a coverage costs on some images.

    `coverage`: asked for, 0..1. `low`, `high`: 95 % interval of what it holds in the long run.
    `size`: mean number of labels. `unknown`: the share of sets that are empty or larger than TOP.
    """

    coverage: float
    low: float
    high: float
    size: float
    unknown: float


def costs(confidence: Confidence, probabilities: Floats) -> tuple[CoverageCost, ...]:
    """Return the cost of each of SHOWN that the confidence has; `probabilities`: [n, classes]."""
    return tuple(
        _cost(percent, confidence, probabilities)
        for percent in SHOWN
        if percent in shown(confidence.floors)
    )


def shown(floors: Sequence[float]) -> tuple[int, ...]:
    """Return those of SHOWN that have a floor."""
    return tuple(percent for percent in SHOWN if percent in COVERAGES[: len(floors)])


def _cost(percent: int, confidence: Confidence, probabilities: Floats) -> CoverageCost:
    floor = confidence.floors[COVERAGES.index(percent)]
    sizes = (probabilities >= np.float32(floor)).sum(axis=1)
    low, high = coverage_ends(rank(confidence.measured, percent), confidence.measured)
    unknown = float(((sizes == 0) | (sizes > TOP)).mean())
    return CoverageCost(percent / 100, low, high, float(sizes.mean()), unknown)
