"""Define the record of what labelled images said of an artefact's answers; the contract has it."""

from kedge_runtime.errors import ContractError
from kedge_runtime.frozen import dataclass

# A figure, and the ends of its 95 % interval.
Interval = tuple[float, float, float]
# The coverages of `Confidence.floors`, in whole percents.
COVERAGES = range(50, 100)


@dataclass(frozen=True)
class Confidence:
    """What labelled images, which nothing else used, said of an artefact's probabilities.

    `fitted`: the number of images that the temperature, or the thresholds, were fitted to.
    `measured`: the number of the others; the figures are theirs. `before`, `after`: the calibration
    error without and with the temperature, 0..1.
    `floors`: the least probability of a label in the set that holds the truth in COVERAGES[i] % of
    images; it ends where `measured` is too small.
    `images`: the marks of all of them. `f1_before`, `f1_after`: of independent classes, with the
    former thresholds and with these.
    """

    fitted: int
    measured: int
    before: Interval
    after: Interval
    floors: tuple[float, ...]
    images: tuple[str, ...]
    f1_before: Interval | None = None
    f1_after: Interval | None = None

    def __post_init__(self) -> None:
        """Refuse counts below 1, and shares that are none or in a wrong order."""
        if min(self.fitted, self.measured) < 1:
            raise ContractError(f"confidence of {self.fitted} and {self.measured} images")
        figures = (self.before, self.after, self.f1_before or (), self.f1_after or (), self.floors)
        if not all(0 <= value <= 1 for values in figures for value in values):
            raise ContractError("confidence has figures outside 0 to 1")
        if len(self.floors) > len(COVERAGES) or list(self.floors) != sorted(self.floors)[::-1]:
            raise ContractError("confidence.floors must fall, one for each of 50 % to 99 %")


@dataclass(frozen=True)
class SecondRule:
    """When a better artefact is asked again, and what the pair then holds.

    `model`: the better one's identity (`artefact/identity.py`). `margin`: in logits; below it the
    first answer is asked again. `agree`: the share of images on which the pair gives the float
    model's answer, at least, but for an error of 5 %. `agreement`, `asked`: shares of `images`: of
    the pair's answers that are the float model's, and of those that were asked again.
    `marks`: of the images.
    """

    model: str
    margin: float
    agree: float
    agreement: Interval
    asked: Interval
    images: int
    marks: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse margins below 0, and shares that are none."""
        shares = (self.agree, *self.agreement, *self.asked)
        if self.margin < 0 or not all(0 <= value <= 1 for value in shares):
            raise ContractError(
                f"second has a margin of {self.margin} and shares of {shares}: calibrate again"
            )
