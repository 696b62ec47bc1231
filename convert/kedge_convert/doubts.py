"""Refuse models whose answers prove nothing, warn of weak checks, and find near ties."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kedge_convert.images import ImageSplit
from kedge_convert.source import Source
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Output
from kedge_runtime.classify.ranking import entropy, mean_binary_entropy
from kedge_runtime.classify.results import label_sets, probabilities
from kedge_runtime.drift.statistics import wilson
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.errors import UsageError
from kedge_runtime.output import percent

STEPS = 255


@dataclass(frozen=True)
class Clear:
    """The agreement in the best class on the `images` without near ties.

    `step`: the least difference of the float model's two best logits on these, one step of an
    8-bit output. `agreement` is None where there are no such images. `interval`: the 95 % interval
    of it (Wilson's).
    """

    images: int
    step: float
    agreement: float | None
    interval: tuple[float, float]

    def holds(self, least: float) -> bool:
        """Whether the agreement reaches `least`, or its interval leaves that open."""
        return self.interval[1] >= least


def clear(reference: Floats, candidate: Floats) -> Clear:
    """Measure the agreement without the near ties of `reference`, [images, classes] both.

    The step comes from the reference alone, so that a file with too wide a range has no excuse.
    """
    step = float(max(reference.max(), 0.0) - min(reference.min(), 0.0)) / STEPS
    second, first = np.partition(reference, -2, axis=1)[:, -2:].T
    kept = first - second >= step
    images = int(kept.sum())
    if not images:
        return Clear(0, step, None, (0.0, 1.0))
    same = (reference.argmax(axis=1) == candidate.argmax(axis=1))[kept]
    low, high = wilson(int(same.sum()), images)
    return Clear(images, step, float(same.mean()), (float(low), float(high)))


# Deviation over images as a share of the logits' size: trained networks have 0.75 to 1, random
# weights as Keras draws them 0.25 to 1 (of logits that may be as small as 1e-17). Below the first
# it is what float32 rounds, below the second it is hardly more than a file may be off by.
CONSTANT, WEAK = 1e-6, 1e-3
# Certainty below which answers look untrained: as Keras draws weights it is 1e-8 to 0.08. Trained
# networks have 0.7 and more on their own kind of image, 0.45 on another.
UNSURE = 0.05


def refuse_answers(logits: Floats, name: str) -> None:
    """Raise UsageError when the answers can't tell right from wrong.

    `logits`: the float model's numbers, [images, classes].
    """
    if reason := _fault(logits):
        raise UsageError(
            f"{name}: its answers to {len(logits)} images {reason}, so no conversion can be "
            "checked: are the weights trained, and is --normalisation the right one?"
        )


def _fault(logits: Floats) -> str:
    if not np.isfinite(logits).all():
        return "are not finite (NaN or infinite)"
    if len(logits) > 1 and variation(logits) < CONSTANT:
        return "are all the same"
    return ""


def doubts(source: Source, images: ImageSplit, logits: Floats) -> Iterator[str]:
    """Yield the reasons why the check is weaker than it looks, a line each."""
    yield from _untrained(source, logits)
    if source.output.kind != "features":
        yield from _one_class(source, images, logits)
    if images.near_copies:
        yield (
            f"{images.near_copies} of the {len(images.validation)} validation images are nearly "
            "copies of calibration images (frames of one video?): the agreement is too high"
        )


def variation(logits: Floats) -> float:
    """Return the deviation over images as a share of the logits' size, both root mean squares."""
    values = logits.astype(np.float64)
    size = np.sqrt((values**2).mean())
    return float(np.sqrt(values.var(axis=0).mean()) / max(size, 1e-30))


def certainty(logits: Floats, output: Output) -> float:
    """Return 1 less the mean entropy over images: 0 for uniform answers, to 1 for certain ones.

    Features have none and count as certain.
    """
    if output.kind == "features":
        return 1.0
    measure = mean_binary_entropy if output.activation == "sigmoid" else entropy
    return 1 - float(np.mean([measure(row) for row in probabilities(logits, output)]))


def _untrained(source: Source, logits: Floats) -> Iterator[str]:
    if _norms_untouched(source.model):
        yield f"{source.name}: its batch norms have never seen an image: is it trained?"
    elif certainty(logits, source.output) < UNSURE:
        yield (
            f"{source.name}: its answers are close to chance ({_chance(logits, source.output)}): "
            "is it trained, and are its pixels normalised as in training?"
        )
    if len(logits) > 1 and (share := variation(logits)) < WEAK:
        yield (
            f"{source.name}: its answers differ by {share:.1g} of their size from image to image: "
            "the agreement says little"
        )


def _chance(logits: Floats, output: Output) -> str:
    """Compare the mean probability of the best answers with a guess."""
    values = probabilities(logits, output)
    if output.activation == "sigmoid":
        mean = float(np.maximum(values, 1 - values).mean())
        return f"yes or no has {percent(mean)} on average, a guess {percent(0.5)}"
    mean, classes = float(values.max(axis=-1).mean()), values.shape[-1]
    return f"the best class has {percent(mean)} on average, a guess {percent(1 / classes)}"


def _norms_untouched(model: Any) -> bool:
    """Whether all moving statistics have their initial values."""
    initial = {"moving_mean": 0.0, "moving_variance": 1.0}
    moving = [weight for weight in model.weights if weight.name in initial]
    return bool(moving) and all((np.asarray(w) == initial[w.name]).all() for w in moving)


def _one_class(source: Source, images: ImageSplit, logits: Floats) -> Iterator[str]:
    paths = (*images.calibration, *images.validation)
    try:
        classes = set((read_truth(paths, source.labels) or {}).values())
    except (
        UsageError
    ):  # file names that name the class of some images only: nobody asked for them here
        classes = set()
    if len(paths) > 1 and len(classes) == 1:
        yield f"all images are of one class, {source.labels[classes.pop()].name}: {_ADVICE}"
    elif len(logits) > 1 and (always := _always(source, logits)) is not None:
        yield f"{source.name} calls every image {always}: {_ADVICE}"


def _always(source: Source, logits: Floats) -> str | None:
    """Return the one answer to every image; None where the answers differ."""
    if source.output.multi_label:
        sets = label_sets(probabilities(logits, source.output), source.output)
        names = [_name(source, int(index)) for index in np.flatnonzero(sets[0])]
        return None if (sets != sets[0]).any() else " and ".join(names) or "by no label"
    answers = set(logits.argmax(axis=1).tolist())
    return _name(source, answers.pop()) if len(answers) == 1 else None


_ADVICE = "calibration and agreement need images of several classes"


def _name(source: Source, index: int) -> str:
    first = source.output.label_offset
    return source.labels[index - first].name if index >= first else "background"
