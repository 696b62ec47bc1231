"""Predict sets of labels that hold the truth in a stated share of images: split conformal.

The score is one minus the probability of the truth, and a set holds every label whose probability
reaches a floor: LAC of Sadinle, Lei and Wasserman 2019 (JASA 114, 223-234; arXiv:1609.00451),
which they show to have the smallest mean size of all sets with that coverage. Adaptive sets (APS,
Romano, Sesia and Candès 2020) are larger, and exact with random numbers only: two devices, or two
looks at one image, would answer differently. LAC's sets may be empty, which is an answer: no label
is likely enough, so the image is unknown.
"""

import math
from collections.abc import Sequence

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.confidence import COVERAGES
from kedge_runtime.errors import UsageError


def rank(images: int, percent: int) -> int:
    """Return which of the truths' probabilities, the largest first, is the floor; from 1.

    With the finite-sample correction, ceil((n + 1) * coverage): Vovk, Gammerman and Shafer 2005,
    Algorithmic Learning in a Random World; Angelopoulos and Bates 2021, arXiv:2107.07511, eq. 1.
    """
    return math.ceil((images + 1) * percent / 100)


def floors(truths: Floats) -> tuple[float, ...]:
    """Return the floor of each of COVERAGES that so many images can hold.

    `truths`: the probability of each image's truth, float32 [n]; of several labels the least one.
    """
    falling = np.sort(truths)[::-1]
    ranks = (rank(len(falling), percent) for percent in COVERAGES)
    # The shortest decimals that read back as the same float32: a device compares float32.
    return tuple(float(str(falling[each - 1])) for each in ranks if each <= len(falling))


def floor_for(coverage: float, floors: Sequence[float]) -> float:
    """Return the least probability of a label in the set for a coverage, 0..1.

    `floors`: as of the contract's `Confidence`. Raises UsageError where they don't have it.
    """
    if not floors:
        raise UsageError(
            "--coverage: no labelled images have calibrated this predictor: "
            "`kedge calibrate FILE --images LABELLED` does, for one artefact"
        )
    known = COVERAGES[: len(floors)]
    percent = round(100 * coverage, 6)
    if percent not in known:
        more = "; more labelled images allow more" if len(known) < len(COVERAGES) else ""
        raise UsageError(
            f"--coverage: got {percent:g} %, allowed are whole percents from {known[0]} to "
            f"{known[-1]}{more}"
        )
    return floors[known.index(int(percent))]
