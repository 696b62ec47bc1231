"""Turn probabilities into the result of an image, and decide when it is unknown."""

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
    """One class of a result.

    `index` counts the labels from 0, and is -1 for the background of a model that has an output
    before its first label; `probability` is in 0..1.
    """

    index: int
    id: str
    name: str
    probability: float


@dataclass(frozen=True)
class Result:
    """The result of one image.

    `best` is always the most probable class. `predictions` are sorted by descending probability,
    ties by index: the `top` exclusive classes, or all independent ones (sigmoid) that reach their
    threshold, maybe none. `margin` is the best probability minus the second. `entropy` is in 0..1:
    H / ln(classes), or the mean of the independent classes' entropies in bits. `unknown`: the
    result misses the rule of the call.
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
    """Whether several models give one image different labels; unknown counts as a label.

    Label files differ in spelling ("black_stork", "black stork, Ciconia nigra"): the first name of
    a class is compared, without regard to case.
    """
    return len({_spoken(result.label) for result in results}) > 1


def _spoken(label: str | None) -> str | None:
    return label and label.replace("_", " ").split(",")[0].strip().casefold()


@dataclass(frozen=True)
class Rule:
    """Decides which results are `unknown`.

    `min_confidence`: the minimum probability of the best class, 0..1. `max_entropy`: the maximum
    normalised entropy, 0..1. `threshold`: replaces the contract's for independent classes, 0..1.
    Raises UsageError for a number outside.
    """

    min_confidence: float = 0.0
    max_entropy: float = 1.0
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers outside 0..1, NaN included."""
        for name, value in vars(self).items():
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}, allowed are 0 to 1")


@dataclass(frozen=True)
class Classes:
    """Names the outputs: one label per output, after the background if there is one."""

    labels: tuple[Label, ...]
    offset: int = 0
    multi_label: bool = False
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise ContractError for a wrong number of thresholds."""
        labels = len(self.labels) - self.offset
        if len(self.thresholds) not in (0, 1, labels):
            raise ContractError(
                f"{len(self.thresholds)} thresholds for {labels} labels; "
                "allowed are none, one for all, or one per label"
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
        """Return the result of probabilities, float32 [outputs]."""
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
