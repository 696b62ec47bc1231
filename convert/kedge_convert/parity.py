"""Compare a sealed file, run by the runtime, with the float model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.doubts import Clear, clear
from kedge_convert.images import Tick, fitted
from kedge_convert.spread import spread
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Output
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import label_sets, probabilities
from kedge_runtime.drift import statistics
from kedge_runtime.drift.statistics import AgreementBy, paired_drop, wilson
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.output import quiet

AGREEMENTS: dict[AgreementBy, str] = {
    "best": "agreement",
    "labels": "agreement of label sets",
    "cosine": "cosine",
}


@dataclass(frozen=True)
class OwnPixels:
    """Agreement of an artefact with the float model on the pixels of the user's own pipeline.

    `library`: the loader of the float model's images; the artefact read the image files.
    `agreement`: a share of `images`, with its 95 % `interval` (Wilson's). `float_agreement`: of the
    float model on kedge's pixels with itself on own ones: the loss by the pixels alone. `clear`: as
    of Parity.
    """

    library: str
    images: int
    agreement: float
    interval: tuple[float, float]
    float_agreement: float
    clear: Clear | None = None


@dataclass(frozen=True)
class Parity:
    """The difference between an artefact and the float model on `images` images.

    Agreements are shares of images, errors are in logits, `sqnr` is in dB, `kl` in nats.
    `agreement_by`: what `agreement` counts, the best class or, of independent classes, the whole
    set of labels; `agreement_top5` is None then. Features have no classes: both agreements and `kl`
    are None, and the cosine takes their place.
    `drop`: the float model's accuracy less the artefact's, where the true classes are known, and
    `drop_interval` its 95 % interval (Tango's, as of `kedge drift`).
    `agreement_interval`: the 95 % interval of `agreement` (Wilson's, as of `kedge drift`).
    `own_pixels`: the same where the float model gets the pixels of the user's own pipeline; None
    where no library loads images so, and for features.
    `clear`: the agreement without near ties (doubts.py); None unless the best class is compared.
    `relative_error_90`: the `relative_error` that nine images in ten keep.
    """

    images: int
    agreement: float | None
    agreement_top5: float | None
    logit_max_error: float
    logit_mean_error: float
    relative_error: float
    cosine: float
    sqnr: float
    kl: float | None
    drop: float | None = None
    agreement_interval: tuple[float, float] | None = None
    agreement_by: AgreementBy = "best"
    drop_interval: tuple[float, float] | None = None
    own_pixels: OwnPixels | None = None
    clear: Clear | None = None
    relative_error_90: float = 0.0

    @property
    def headline(self) -> tuple[str, float]:
        """The figure that decides, behind its name: the agreement, or the cosine."""
        if self.agreement is None:
            return "cosine", self.cosine
        return AGREEMENTS[self.agreement_by], self.agreement

    def plain(self) -> dict[str, Any]:
        """Return the figures for JSON, which has neither NaN nor infinity."""
        return {
            name: None if isinstance(value, float) and not isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class AskedFile:
    """A sealed file and its answers so far, [classes] by image: the sketch needs them again."""

    path: Path
    rows: dict[Path, Floats] = field(default_factory=dict)

    def ask(
        self, images: Sequence[Path], tick: Tick = lambda: None, *, at_size: bool = False
    ) -> Floats:
        """Return the answers to images, [images, classes], and keep them; `at_size`: `answers`."""
        found = answers(read_content(self.path), images, tick, at_size=at_size)
        self.rows.update(zip(images, found, strict=True))
        return found


def answers(
    content: ModelContent,
    images: Sequence[Path],
    tick: Tick = lambda: None,
    *,
    at_size: bool = False,
) -> Floats:
    """Return a sealed file's logits, [images, classes], as a device would compute them.

    `at_size`: from the images that are kept at the network's size (images.py).
    """

    with quiet():
        classifier = Classifier.of(content, EngineOptions(copies=True))
    return spread(partial(_numbers, classifier) if at_size else classifier.outputs, images, tick)


def _numbers(classifier: Classifier, path: Path) -> Floats:
    (pixels,) = fitted([path], classifier.contract.input)
    return classifier.numbers(classifier.engine.run(classifier.preprocessor.look_up(pixels)))


def compare(reference: Floats, candidate: Floats, output: Output) -> Parity:
    """Measure the distance between two sets of numbers of the kind `output`, [images, classes]."""
    classes, by = output.kind != "features", agreement_by(output)
    agreement = _agreement(reference, candidate, output) if classes else None
    return Parity(
        images=len(reference),
        agreement=agreement,
        agreement_top5=statistics.top_k_agreement(reference, candidate, 5)
        if by == "best"
        else None,
        logit_max_error=statistics.max_error(reference, candidate),
        logit_mean_error=statistics.mean_error(reference, candidate),
        relative_error=statistics.relative_error(reference, candidate),
        cosine=statistics.cosine(reference, candidate),
        sqnr=statistics.sqnr(reference, candidate),
        kl=divergence(reference, candidate, output) if classes else None,
        agreement_interval=None if agreement is None else interval(agreement, len(reference)),
        agreement_by=by,
        clear=_clear(reference, candidate, output),
        relative_error_90=statistics.relative_error(reference, candidate, images=0.9),
    )


def _clear(reference: Floats, candidate: Floats, output: Output) -> Clear | None:
    return clear(reference, candidate) if agreement_by(output) == "best" else None


def agreement_by(output: Output) -> AgreementBy:
    """Return the measure of agreement for answers of the kind `output`."""
    if output.kind == "features":
        return "cosine"
    return "labels" if output.multi_label else "best"


def _agreement(reference: Floats, candidate: Floats, output: Output) -> float:
    if not output.multi_label:
        return statistics.top_k_agreement(reference, candidate, 1)
    sets = (label_sets(probabilities(each, output), output) for each in (reference, candidate))
    return statistics.label_agreement(*sets)


def interval(share: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many images."""
    low, high = wilson(round(share * images), images)
    return float(low), float(high)


def divergence(reference: Floats, candidate: Floats, output: Output) -> float:
    """Return how far two sets of numbers are apart: the mean divergence in nats; 1 - the cosine
    for features.
    """
    if output.kind == "features":
        return 1 - statistics.cosine(reference, candidate)
    p, q = probabilities(reference, output), probabilities(candidate, output)
    return statistics.kl(p, q, multi_label=output.multi_label)


def with_drop(
    parity: Parity, reference: Floats, candidate: Floats, classes: Sequence[int] | None
) -> Parity:
    """Add the drop in accuracy to a parity, if the true classes, [images], are known."""
    if classes is None:
        return parity
    ours, theirs = (each.argmax(axis=1) == np.asarray(classes) for each in (reference, candidate))
    lost, gained = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    low, high = paired_drop(lost, gained, len(ours))
    drop = (lost - gained) / len(ours)
    return replace(parity, drop=drop, drop_interval=(float(low), float(high)))


@dataclass(frozen=True)
class OwnAnswers:
    """The float model's answers to images as `library` loads them, [images, classes]."""

    library: str
    logits: Floats


def with_own_pixels(
    parity: Parity, own: OwnAnswers | None, reference: Floats, candidate: Floats, output: Output
) -> Parity:
    """Add the agreement on own pixels to a parity.

    `own`: of the images of `reference` (the float model on kedge's pixels) and `candidate`; the
    first ones count that all three have.
    """
    if own is None or output.kind == "features":
        return parity
    count = min(len(own.logits), len(candidate))
    logits = own.logits[:count]
    share, pixels = (_agreement(logits, each[:count], output) for each in (candidate, reference))
    untied = _clear(logits, candidate[:count], output)
    agreed = OwnPixels(own.library, count, share, interval(share, count), pixels, untied)
    return replace(parity, own_pixels=agreed)
