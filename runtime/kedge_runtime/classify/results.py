"""Turn outputs into probabilities and these into results, and decide when one is unknown.

The activation is applied in float, exactly once.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, field, replace
from numbers import Real
from typing import Any

import numpy as np

from kedge_runtime.arrays import Flags, Floats, Places
from kedge_runtime.artefact.contract import Contract, Label, Output
from kedge_runtime.artefact.kinds import Activation
from kedge_runtime.classify.ranking import descending, entropy, mean_binary_entropy
from kedge_runtime.errors import ContractError, EngineError, UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.records import shown

# The default where neither the contract nor the caller gives one.
THRESHOLD = 0.5


def softmax(logits: Floats) -> Floats:
    """Return probabilities along the last axis; the maximum is subtracted to avoid overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Return each class's own probability, computed with tanh, which can't overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


ACTIVATIONS: dict[Activation, Callable[[Floats], Floats]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
}


def probabilities(outputs: Floats, output: Output) -> Floats:
    """Return the probabilities, [..., classes], of a model's outputs."""
    if output.kind == "logits":
        logits = outputs if output.temperature == 1 else outputs / np.float32(output.temperature)
        return ACTIVATIONS[output.activation](logits)
    if output.kind == "softmax" and output.temperature != 1:
        return _tempered(outputs, output.temperature)
    return outputs


def _tempered(shares: Floats, temperature: float) -> Floats:
    """Return the softmax of logits divided by a temperature, of their softmax without it."""
    # A device's softmax may dequantise to a little less than 0.
    powers = np.maximum(shares, 0) ** np.float32(1 / temperature)
    return np.asarray(powers / np.maximum(powers.sum(axis=-1, keepdims=True), 1e-12), np.float32)


def reached(values: Floats, thresholds: Sequence[float], offset: int = 0) -> Flags:
    """Return which independent classes reach their thresholds, bool [..., outputs]."""
    return np.asarray(values >= limits(thresholds, offset))


def limits(thresholds: Sequence[float], offset: int = 0) -> Floats:
    """Return each class's threshold, float32 [outputs] or [1].

    `thresholds`: none for .5, one for all, or one per label; `offset`: outputs before the first
    label's.
    """
    stated = tuple(thresholds) or (THRESHOLD,)
    if len(stated) > 1:
        stated = (THRESHOLD,) * offset + stated
    return np.asarray(stated, np.float32)


def label_sets(values: Floats, output: Output) -> Flags:
    """Return which independent classes reach the contract's thresholds, bool [..., outputs]."""
    return reached(values, output.thresholds, output.label_offset)


def check_finite(values: Floats) -> Floats:
    """Return `values`. Raises EngineError when one of them is infinite or NaN."""
    if not np.isfinite(values).all():
        raise EngineError("the model's outputs aren't finite: its file or its engine is broken")
    return values


BACKGROUND = Label("background", "background")


@dataclass(frozen=True, repr=False)
class Prediction:
    """One class of a result.

    Attributes:
        index: Counts the labels from 0. It is -1 for the background of a model that has an output
            before its first label.
        id: The label's stable key, e.g. a synset of ImageNet.
        name: The label's name for people.
        probability: 0 to 1.
    """

    index: int
    id: str
    name: str
    probability: float

    def __repr__(self) -> str:
        """Return the name and the probability."""
        return f"<Prediction {self}>"

    def __str__(self) -> str:
        """Return e.g. `'star' 96.1%`."""
        return f"{self.name!r} {self.probability:.1%}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON.

        Returns:
            The keys `index`, `id`, `name` and `probability`.
        """
        return asdict(self)


SHOWN = 3  # classes in the repr of a result


@dataclass(frozen=True, repr=False)
class Result:
    """The result of one image.

    In a notebook it shows itself as the image with a bar for each class.

    Attributes:
        best: The most probable class, always.
        predictions: Sorted by descending probability, ties by index. Of exclusive classes the first
            `top`, of independent ones (sigmoid) all that reach their threshold, maybe none. With a
            coverage: the smallest set of labels that holds the truth so often, its first `top`.
        margin: The best probability minus the second.
        entropy: 0 (sure) to 1 (no idea): H / ln(classes). Of independent classes the mean of their
            entropies in bits.
        unknown: Whether the result misses the rule of the call. With a coverage, also where the set
            is empty or larger than `top`.
        thumbnail: A small JPEG of the image in a notebook, else None. It does not count when
            results are compared.
        set_size: With a coverage, the number of labels in the set; else None.
    """

    best: Prediction
    predictions: tuple[Prediction, ...]
    margin: float
    entropy: float
    unknown: bool = False
    thumbnail: bytes | None = field(default=None, compare=False)
    set_size: int | None = None

    @property
    def label(self) -> str | None:
        """The best class's name, or None for an unknown."""
        return None if self.unknown else self.best.name

    def to_dict(self) -> dict[str, Any]:
        """Return the result, ready for JSON.

        Returns:
            The keys that `kedge classify --json` has for an image: `label`, `unknown`, `margin`,
            `entropy`, `best` and `predictions`; with a coverage also `set_size`.
        """
        sized = {} if self.set_size is None else {"set_size": self.set_size}
        return {
            "label": self.label,
            "unknown": self.unknown,
            "margin": self.margin,
            "entropy": self.entropy,
            "best": self.best.to_dict(),
            "predictions": [prediction.to_dict() for prediction in self.predictions],
            **sized,
        }

    def __repr__(self) -> str:
        """Return the first classes, or `unknown` and the best one."""
        if self.unknown:
            return f"<Result unknown, best {self.best}>"
        more = len(self.predictions) - SHOWN
        rest = [f"{more} more"] if more > 0 else []
        return f"<Result {', '.join([*map(str, self.predictions[:SHOWN]), *rest])}>"

    def _repr_html_(self) -> str:
        """Return the image and a bar for each class, as HTML for a notebook."""
        from kedge_runtime.classify.notebook import page  # not needed on a device

        return page(self)


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

    Attributes:
        min_confidence: The minimum probability of the best class, 0 to 1.
        max_entropy: The maximum normalised entropy, 0 to 1.
        threshold: Replaces the contract's thresholds for independent classes, 0 to 1.
        coverage: Predict the smallest set of labels that holds the truth in this share of images;
            whole percents from .5 on. `kedge calibrate` makes an artefact ready for it.

    Raises:
        UsageError: A value is no number from 0 to 1.
    """

    min_confidence: float = 0.0
    max_entropy: float = 1.0
    threshold: float | None = None
    coverage: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers outside 0..1, NaN included, and what is no number."""
        for name, value in vars(self).items():
            if name in ("threshold", "coverage") and value is None:
                continue
            if not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise UsageError(f"{name} is {shown(value)}, allowed are 0 to 1")


@dataclass(frozen=True)
class Classes:
    """Names the outputs: one label per output, after the background if there is one.

    `floors`: as of the contract's `Confidence`; none where no coverage can be asked for.
    """

    labels: tuple[Label, ...]
    offset: int = 0
    multi_label: bool = False
    thresholds: tuple[float, ...] = ()
    floors: tuple[float, ...] = ()

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

    @classmethod
    def of_contract(cls, contract: Contract) -> "Classes":
        """Return the classes of a contract, with the floors of its confidence."""
        classes = cls.of(contract.labels, contract.output)
        floors = contract.confidence.floors if contract.confidence else ()
        return replace(classes, floors=floors)

    def without_floors(self) -> "Classes":
        """Return the classes of a predictor that no labelled images have calibrated."""
        return replace(self, floors=())

    def prediction(self, output: int, probability: float) -> Prediction:
        """Return the class of one output."""
        label = self.labels[output]
        return Prediction(output - self.offset, label.id, label.name, probability)

    def result(self, values: Floats, top: int = 5, rule: Rule = Rule()) -> Result:
        """Return the result of probabilities, float32 [outputs].

        Raises UsageError for a coverage that the artefact isn't calibrated for.
        """
        order = descending(values, max(top, 2))
        best, *others = values[order].tolist()
        chosen, size = self._chosen(values, order, top, rule)
        spread = (mean_binary_entropy if self.multi_label else entropy)(values)
        unsure = best < rule.min_confidence or spread > rule.max_entropy
        return Result(
            self.prediction(int(order[0]), best),
            tuple(map(self.prediction, chosen.tolist(), values[chosen].tolist())),
            best - (others[0] if others else 0.0),
            spread,
            not chosen.size or unsure or (size or 0) > top,
            set_size=size,
        )

    def _chosen(
        self, values: Floats, order: Places, top: int, rule: Rule
    ) -> tuple[Places, int | None]:
        """Return the outputs to predict, and how many labels a coverage takes."""
        if rule.coverage is not None:
            from kedge_runtime.confidence.conformal import floor_for  # few ask for a coverage

            size = int((values >= np.float32(floor_for(rule.coverage, self.floors))).sum())
            return order[: min(size, top)], size
        return self._reached(values, rule) if self.multi_label else order[:top], None

    def _reached(self, values: Floats, rule: Rule) -> Places:
        thresholds = self.thresholds if rule.threshold is None else (rule.threshold,)
        chosen = np.flatnonzero(reached(values, thresholds, self.offset))
        return chosen[np.argsort(-values[chosen], kind="stable")]
