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

from kedge_runtime.arrays import Doubles, Flags, Floats
from kedge_runtime.artefact.confidence import Interval
from kedge_runtime.confidence.binomial import least_share
from kedge_runtime.drift.statistics import wilson
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


def choose(answers: PairAnswers, agree: float, calls: float = 0.0) -> ChosenMargin:
    """Return the smallest margin with which the pair surely agrees on the share asked for.

    `calls`: a share of images that may be asked again in any case: a larger margin is taken up to
    it. All margins that pass hold the bound together. Raises UsageError where none passes, and says
    how many images would do.
    """
    passed = list[float]()
    for margin in MARGINS:
        agreed = answers.agreed(margin)
        if _bound(int(agreed.sum()), len(agreed)) < agree:
            break
        passed.append(margin)
    if not passed:
        raise UsageError(_too_few(answers, agree))
    within = (margin for margin in passed if answers.asked(margin).mean() <= calls)
    chosen = next(within, passed[-1])
    return ChosenMargin(chosen, _interval(answers.agreed(chosen)), _interval(answers.asked(chosen)))


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
    return f"{said}: {needed} images would do, if no larger share differs; ask for less, or add"


MOST_IMAGES = 1_000_000  # nobody has more


def enough(agreed: int, total: int, agree: float) -> int | None:
    """Return the least number of images whose bound reaches a share, if as large a share differs.

    None where no number does.
    """
    differ = (total - agreed) / total

    def holds(images: int) -> bool:
        return least_share(images - math.ceil(images * differ), images) >= agree

    low, high = total, 2 * total
    while not holds(high):
        low, high = high, 2 * high
        if high > MOST_IMAGES or differ >= 1 - agree:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def latency(first: Doubles, second: Doubles, asked: float) -> tuple[float, float, float]:
    """Return the median milliseconds of both artefacts, and of the pair; the times in seconds."""
    one, two = (1000 * float(np.median(each)) for each in (first, second))
    return one, two, one + asked * two
