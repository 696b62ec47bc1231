"""Choose the margin below which a better artefact is asked again, so that the pair agrees.

The promise is a bound: but for an error of 5 %, the pair gives the float model's answer on at least
the share asked for. Margins are tested one after the other, the safest (ask always) first, each
with the exact binomial bound, until one fails: fixed-sequence testing, which holds the error for
all of them together (Angelopoulos, Bates, Candès, Jordan and Lei 2021, Learn then Test,
arXiv:2110.01052). The grid of margins is fixed, and so knows nothing of the images.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Floats, Indices
from kedge_runtime.artefact.confidence import Interval
from kedge_runtime.confidence.binomial import least_share
from kedge_runtime.drift.statistics import images_needed, wilson
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.output import percent

# In logits, the safest first; the largest stands for "always".
MARGINS = tuple(round(float(each), 4) for each in np.geomspace(64, 0.01, 120))
ALWAYS = MARGINS[0]


@dataclass(frozen=True)
class PairAnswers:
    """What both artefacts of a pair say of some images, all [n].

    `closeness`: of the first one's answer to another, in logits. `first`, `second`: whether their
    answers are the float model's.
    """

    closeness: Floats
    first: Flags
    second: Flags

    def agreed(self, margin: float) -> Flags:
        """Return on which images the pair gives the float model's answer."""
        return np.asarray(np.where(self.asked(margin), self.second, self.first), np.bool_)

    def asked(self, margin: float) -> Flags:
        """Return which images are asked again."""
        if margin == ALWAYS:
            return np.ones(len(self.first), np.bool_)
        return np.asarray(self.closeness < margin, np.bool_)


@dataclass(frozen=True)
class ChosenMargin:
    """A margin, and shares of the images: agreed and asked again, with 95 % intervals."""

    margin: float
    agreement: Interval
    asked: Interval


def choose(answers: PairAnswers, agree: float) -> ChosenMargin:
    """Return the smallest margin with which the pair surely agrees on the share asked for.

    Raises UsageError where no margin does, and says how many images would do.
    """
    passed = None
    for margin in MARGINS:
        agreed = answers.agreed(margin)
        if _bound(int(agreed.sum()), len(agreed)) < agree:
            break
        passed = margin
    if passed is None:
        raise UsageError(_too_few(answers, agree))
    return ChosenMargin(passed, _interval(answers.agreed(passed)), _interval(answers.asked(passed)))


@cache
def _bound(count: int, total: int) -> float:
    return least_share(count, total)


def _interval(flags: Flags) -> Interval:
    low, high = wilson(int(flags.sum()), len(flags))
    return float(flags.mean()), float(low), float(high)


def _too_few(answers: PairAnswers, agree: float) -> str:
    """Return why not even asking always is sure to agree, and how many images would do."""
    agreed, total = int(answers.second.sum()), len(answers.second)
    said = (
        f"--agree {percent(agree, 2)}: the second artefact agrees with the float model on "
        f"{agreed} of {counted(total, 'image')}, which is sure for {percent(_bound(agreed, total))}"
    )
    needed = enough(agreed, total, agree)
    if needed is None:
        return f"{said}: it differs too often; ask for less, or give a better artefact"
    return f"{said}: about {needed} images would do (in nine of ten cases); ask for less, or add"


def enough(agreed: int, total: int, agree: float) -> int | None:
    """Return how many images would be enough, in nine of ten cases, given these answers."""
    if agree >= 1 or total - agreed > (1 - agree) * total:
        return None

    def decides(counts: Indices, images: int) -> Flags:
        return np.asarray(counts[:, 1] <= _most_wrong(images, agree))

    found = images_needed((agreed, total - agreed), decides)
    return None if found is None else int(found)


@cache
def _most_wrong(images: int, agree: float) -> int:
    """Return how many of so many images may differ; -1 where not even none is enough."""
    low, high = -1, math.ceil(images * (1 - agree)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if least_share(images - middle, images) >= agree else (low, middle)
        )
    return low


def latency(first: Doubles, second: Doubles, asked: float) -> tuple[float, float, float]:
    """Return the median milliseconds of both artefacts, and of the pair; the times in seconds."""
    one, two = (1000 * float(np.median(each)) for each in (first, second))
    return one, two, one + asked * two
