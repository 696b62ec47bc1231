"""Fit an artefact's confidence to labelled images, and measure it on others of them.

Half of them fits the temperature, and the thresholds of independent classes. The other half
measures the calibration error and sets the floors of the label sets. So no image judges what was
fitted to it, and the coverage keeps its guarantee: its images know nothing of the temperature.
"""

from dataclasses import dataclass, replace

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Floats, Indices
from kedge_runtime.artefact.confidence import Confidence, Interval
from kedge_runtime.artefact.contract import Contract, Output
from kedge_runtime.classify.results import label_sets, probabilities
from kedge_runtime.classify.second_opinion import logits_of
from kedge_runtime.confidence import conformal, temperature
from kedge_runtime.confidence.error import calibration_error, gaps, resampled
from kedge_runtime.drift.statistics import LEVEL
from kedge_runtime.errors import UsageError

# Fewer images tell a temperature no better than to a quarter.
LEAST_IMAGES = 100
FITTED = 1 / 2  # the share of the images that is fitted to


@dataclass(frozen=True)
class LabelledOutputs:
    """An artefact's numbers for images with ground truth, in any order.

    `outputs`: float32 [n, outputs], before activation. `truth`: the index of the true output,
    int64 [n]; of independent classes which are true, bool [n, outputs]. `marks`: of the files.
    """

    outputs: Floats
    truth: Indices | Flags
    marks: tuple[str, ...]

    @property
    def classes(self) -> Indices:
        """The index of the one true output, [n]."""
        return np.asarray(self.truth, np.int64)

    @property
    def sets(self) -> Flags:
        """Which independent classes are true, [n, outputs]."""
        return np.asarray(self.truth, np.bool_)

    def part(self, chosen: Indices) -> "LabelledOutputs":
        """Return some of the images."""
        marks = tuple(self.marks[i] for i in chosen)
        return LabelledOutputs(self.outputs[chosen], self.truth[chosen], marks)


def fitted(contract: Contract, labelled: LabelledOutputs) -> Contract:
    """Return the contract with what labelled images say of its probabilities.

    An earlier temperature is replaced. Raises UsageError for too few images, and for a model whose
    answers have no confidence.
    """
    check(contract.output, len(labelled.marks))
    ours, others = _split(labelled)
    plain = replace(contract.output, temperature=1.0)
    output = _fit(plain, ours)
    truths = _truths(probabilities(others.outputs, output), others.truth)
    f1 = _f1(contract.output, output, others) if output.multi_label else (None, None)
    confidence = Confidence(
        fitted=len(ours.marks),
        measured=len(others.marks),
        before=_error(plain, others),
        after=_error(output, others),
        floors=conformal.floors(truths),
        images=tuple(sorted(labelled.marks)),
        f1_before=f1[0],
        f1_after=f1[1],
    )
    # Other thresholds give other sets: what a pair agreed on says nothing of them.
    second = None if output.thresholds != contract.output.thresholds else contract.second
    return replace(contract, output=output, confidence=confidence, second=second)


def check(output: Output, images: int) -> None:
    """Raise UsageError for a model of features, and for too few images."""
    if output.kind == "features":
        raise UsageError("the model outputs features, which have no confidence; give a classifier")
    if images < LEAST_IMAGES:
        raise UsageError(
            f"{images} labelled images that nothing else used, at least {LEAST_IMAGES} are needed: "
            "add images"
        )


def _split(labelled: LabelledOutputs) -> tuple[LabelledOutputs, LabelledOutputs]:
    """Return half of the images, and the others; by their contents, not by their names."""
    order = np.argsort(np.array(labelled.marks))
    drawn = np.random.default_rng(0).permutation(order)
    count = round(len(drawn) * FITTED)
    return labelled.part(drawn[:count]), labelled.part(drawn[count:])


def _fit(plain: Output, images: LabelledOutputs) -> Output:
    """Return the output with its temperature, and the thresholds of independent classes."""
    if not plain.multi_label:
        logits = logits_of(images.outputs, plain)
        return replace(plain, temperature=temperature.of_softmax(logits, images.classes))
    fitted = plain
    if plain.kind == "logits":
        fitted = replace(plain, temperature=temperature.of_sigmoid(images.outputs, images.sets))
    stated = temperature.thresholds(probabilities(images.outputs, fitted), images.sets)
    return replace(fitted, thresholds=stated[plain.label_offset :])


def _truths(values: Floats, truth: Indices | Flags) -> Floats:
    """Return the probability of each image's truth, [n]: the least one of its true labels.

    An image without labels is covered by any set.
    """
    if truth.ndim == 1:
        return np.asarray(values[np.arange(len(values)), truth], np.float32)
    return np.asarray(np.where(truth, values, np.float32(1)).min(axis=1), np.float32)


def _error(output: Output, images: LabelledOutputs) -> Interval:
    return calibration_error(image_gaps(output, images))


def image_gaps(output: Output, images: LabelledOutputs) -> Doubles:
    """Return how much each image adds to the gap of confidence and accuracy, [n, bins]."""
    values = probabilities(images.outputs, output)
    if output.multi_label:
        return gaps(values, images.sets)
    return gaps(values.max(axis=1), values.argmax(axis=1) == images.truth)


def _f1(before: Output, after: Output, images: LabelledOutputs) -> tuple[Interval, Interval]:
    """Return the F1 of all labels together, with the former thresholds and with the new ones."""
    first, second = (_f1_of(output, images) for output in (before, after))
    return first, second


def _f1_of(output: Output, images: LabelledOutputs) -> Interval:
    chosen = label_sets(probabilities(images.outputs, output), output)
    parts = temperature.f1_parts(chosen, images.sets)
    low, high = np.quantile(_f1_values(resampled(parts)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(_f1_values(parts.mean(axis=0)[None])[0])
    return value, min(float(low), value), max(float(high), value)


def _f1_values(parts: Doubles) -> Doubles:
    hits, chosen, true = parts.T
    return np.asarray(2 * hits / np.maximum(chosen + true, 1e-12))
