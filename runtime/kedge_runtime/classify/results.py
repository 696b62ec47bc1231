"""The answer for one picture, and when it counts as one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Label, Output
from kedge_runtime.classify.outputs import descending, entropy, mean_binary_entropy, reached
from kedge_runtime.errors import ContractError, UsageError

BACKGROUND = Label("background", "background")


@dataclass(frozen=True)
class Prediction:
    """One class of an answer.

    `index` counts the labels from 0, and is -1 for the background of a model that has an output
    before its first label; `probability` is in 0..1.
    """

    index: int
    id: str
    name: str
    probability: float


@dataclass(frozen=True)
class Result:
    """The answer for one picture.

    `best` is the most probable class, always. `predictions` go down in probability, ties by index:
    the `top` classes of exclusive ones, or of independent ones (sigmoid) those that reach their
    threshold, which may be none. `margin` is the best probability minus the second, `entropy` is
    0 (sure) to 1 (no idea): H / ln(classes), or of independent classes the mean of each one's own
    in bits. `unknown` says that the answer doesn't hold by the rule it was asked with.
    """

    best: Prediction
    predictions: tuple[Prediction, ...]
    margin: float
    entropy: float
    unknown: bool = False

    @property
    def label(self) -> str | None:
        """The best class's name, or None for an unknown."""
        return None if self.unknown else self.best.name


def disagree(results: Sequence[Result]) -> bool:
    """Whether several models answer one picture differently; unknown is an answer too.

    Label files differ in spelling ("black_stork", "black stork, Ciconia nigra"): the first name of
    a class is compared, without regard to case.
    """
    return len({_spoken(result.label) for result in results}) > 1


def _spoken(label: str | None) -> str | None:
    return label and label.replace("_", " ").split(",")[0].strip().casefold()


@dataclass(frozen=True)
class Rule:
    """When an answer counts; what misses it is `unknown`.

    `min_confidence`: the least probability of the best class, 0..1. `max_entropy`: the largest
    normalised entropy, 0..1. `threshold`: instead of the contract's, for independent classes, 0..1.
    Raises UsageError for a number outside.
    """

    min_confidence: float = 0.0
    max_entropy: float = 1.0
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no probability could meet, NaN included."""
        for name, value in vars(self).items():
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}, allowed are 0 to 1")


@dataclass(frozen=True)
class Classes:
    """What the outputs are called: one label per output, the background before them if any."""

    labels: tuple[Label, ...]
    offset: int = 0
    multi_label: bool = False
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse thresholds for other classes than these."""
        labels = len(self.labels) - self.offset
        if len(self.thresholds) not in (0, 1, labels):
            raise ContractError(
                f"there are {len(self.thresholds)} thresholds for {labels} labels; "
                "give none, one for all, or one per label"
            )

    @classmethod
    def of(cls, labels: tuple[Label, ...], output: Output) -> "Classes":
        """Return the classes of a contract's labels and output."""
        offset = output.label_offset
        names = (BACKGROUND,) * offset + labels
        return cls(names, offset, output.multi_label, output.thresholds)

    def prediction(self, output: int, probability: float) -> Prediction:
        """Return the class of one output."""
        label = self.labels[output]
        return Prediction(output - self.offset, label.id, label.name, probability)

    def result(self, values: Floats, top: int = 5, rule: Rule = Rule()) -> Result:
        """Return the answer to probabilities, float32 [outputs]."""
        order = descending(values, max(top, 2))
        best, *others = values[order].tolist()
        chosen = self._reached(values, rule) if self.multi_label else order[:top]
        spread = (mean_binary_entropy if self.multi_label else entropy)(values)
        return Result(
            self.prediction(int(order[0]), best),
            tuple(map(self.prediction, chosen.tolist(), values[chosen].tolist())),
            best - (others[0] if others else 0.0),
            spread,
            not chosen.size or best < rule.min_confidence or spread > rule.max_entropy,
        )

    def _reached(self, values: Floats, rule: Rule) -> NDArray[np.intp]:
        thresholds = self.thresholds if rule.threshold is None else (rule.threshold,)
        chosen = np.flatnonzero(reached(values, thresholds, self.offset))
        return chosen[np.argsort(-values[chosen], kind="stable")]
