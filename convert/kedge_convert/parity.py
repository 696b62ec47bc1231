"""Compare a sealed file, run by the runtime, with the float model, and judge the difference."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.doubts import Clear, clear
from kedge_convert.images import Tick
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Output, Precision
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.outputs import label_sets, probabilities
from kedge_runtime.drift import metrics
from kedge_runtime.drift.intervals import paired_drop, wilson
from kedge_runtime.drift.metrics import AgreementBy
from kedge_runtime.errors import counted
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
class ParityLimits:
    """Limits of a file: the least agreement, the largest relative logit error and, if it matters,
    the largest drop in accuracy, a share of the images.

    `by_interval`: the agreement misses only with its whole 95 % interval. A default is nobody's
    promise, and a hundred images measure no better than to six points.
    `near_ties`: the answers have 8 bits, so a default can ask for no agreement on near ties.
    `of_most`: where the answers hardly diverge, the error is that of nine images in ten. A default
    of integers is for logits that are all wrong, not for one image beyond the calibrated ranges.
    """

    agreement: float
    relative_error: float
    drop: float | None = None
    by_interval: bool = False
    near_ties: bool = False
    of_most: bool = False


@dataclass(frozen=True)
class UserLimits:
    """The user's own limits, as of ParityLimits; None keeps the precision's default."""

    agreement: float | None = None
    relative_error: float | None = None
    drop: float | None = None


DEFAULTS = UserLimits()


# float32 differs by the order of sums only, float16 by an 11-bit mantissa (MobileNetV2: 2.5e-3).
# For integers the agreement decides; their logit error (0.2 for MobileNet 0.25) only tells what
# agreement doesn't see, as logits that are all shifted.
LIMITS: dict[Precision, ParityLimits] = {
    "float32": ParityLimits(0.99, 1e-4, by_interval=True),
    "float16": ParityLimits(0.98, 1e-2, by_interval=True),
    "dynamic": ParityLimits(0.90, 0.5, by_interval=True, of_most=True),
    "int8": ParityLimits(0.90, 0.5, by_interval=True, near_ties=True, of_most=True),
    "int16x8": ParityLimits(0.90, 0.5, by_interval=True, of_most=True),
    "mixed": ParityLimits(0.90, 0.5, by_interval=True, near_ties=True, of_most=True),
}


# Limit of the agreement on own pixels, where the precision's own limit is higher. TensorFlow's
# decoder is up to 22 steps off every other on a JPEG (docs/preprocessing.md), which moves answers
# near a tie (.955 of 66 grey digits). A wrong crop on photos gave .91 and less.
OWN_PIXELS = 0.95
# Most divergence, in nats, where near ties or a few images are excused: good int8 files have .003
# to .03, stock int8 of MobileNet 0.25, which nothing excuses, .185 (docs/quantisation.md).
LITTLE_KL = 0.1


@dataclass(frozen=True)
class Verdict:
    """Passed, or the reasons why not."""

    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is no reason against the artefact."""
        return not self.reasons

    def joined(self, reasons: tuple[str, ...]) -> "Verdict":
        """Return the verdict with more reasons."""
        return Verdict((*self.reasons, *reasons))


def answers(path: Path, images: Sequence[Path], tick: Tick = lambda: None) -> Floats:
    """Return the sealed file's logits, [images, classes], as a device would compute them."""
    with quiet():
        classifier = Classifier.open(path)
    rows = []
    for image in images:
        rows.append(classifier.outputs(image))
        tick()
    return np.stack(rows)


def compare(reference: Floats, candidate: Floats, output: Output) -> Parity:
    """Measure the distance between two sets of numbers of the kind `output`, [images, classes]."""
    classes, by = output.kind != "features", agreement_by(output)
    agreement = _agreement(reference, candidate, output) if classes else None
    return Parity(
        images=len(reference),
        agreement=agreement,
        agreement_top5=metrics.top_k_agreement(reference, candidate, 5) if by == "best" else None,
        logit_max_error=metrics.max_error(reference, candidate),
        logit_mean_error=metrics.mean_error(reference, candidate),
        relative_error=metrics.relative_error(reference, candidate),
        cosine=metrics.cosine(reference, candidate),
        sqnr=metrics.sqnr(reference, candidate),
        kl=divergence(reference, candidate, output) if classes else None,
        agreement_interval=None if agreement is None else interval(agreement, len(reference)),
        agreement_by=by,
        clear=_clear(reference, candidate, output),
        relative_error_90=metrics.relative_error(reference, candidate, images=0.9),
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
        return metrics.top_k_agreement(reference, candidate, 1)
    sets = (label_sets(probabilities(each, output), output) for each in (reference, candidate))
    return metrics.label_agreement(*sets)


def interval(share: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many images."""
    low, high = wilson(round(share * images), images)
    return float(low), float(high)


def divergence(reference: Floats, candidate: Floats, output: Output) -> float:
    """Return how far two sets of numbers are apart: the mean divergence in nats; 1 - the cosine
    for features.
    """
    if output.kind == "features":
        return 1 - metrics.cosine(reference, candidate)
    p, q = probabilities(reference, output), probabilities(candidate, output)
    return metrics.kl(p, q, multi_label=output.multi_label)


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

    `own`: of the first images of `reference` (the float model on kedge's pixels) and `candidate`.
    """
    if own is None or output.kind == "features":
        return parity
    count = len(own.logits)
    share, pixels = (
        _agreement(own.logits, each[:count], output) for each in (candidate, reference)
    )
    untied = _clear(own.logits, candidate[:count], output)
    agreed = OwnPixels(own.library, count, share, interval(share, count), pixels, untied)
    return replace(parity, own_pixels=agreed)


def limits_for(precision: Precision, user: UserLimits = DEFAULTS) -> ParityLimits:
    """Return the limits of a precision, with the user's own where given.

    The user's own hold exactly.
    """
    own: dict[str, Any] = {name: value for name, value in asdict(user).items() if value is not None}
    default = LIMITS[precision]
    of_most = default.of_most and "relative_error" not in own
    return replace(default, by_interval="agreement" not in own, of_most=of_most, **own)


def is_open(parity: Parity, limits: ParityLimits) -> bool:
    """Whether the agreement lies below its limit, but not with its whole interval."""
    if not limits.by_interval or parity.agreement is None or parity.agreement_interval is None:
        return False
    return parity.agreement < limits.agreement <= parity.agreement_interval[1]


def left_open(parity: Parity, limits: ParityLimits) -> tuple[str, ...]:
    """Return the line that says that the images can't decide, if they can't."""
    if not is_open(parity, limits) or parity.agreement_interval is None:
        return ()
    (word, agreement), (low, high) = parity.headline, parity.agreement_interval
    return (
        f"{word} {agreement:.3f} on {counted(parity.images, 'image')}, 95 % CI {low:.3f} to "
        f"{high:.3f}: too few images to decide on {limits.agreement:g}; add images to --calibrate",
    )


def are_tied(parity: Parity, limits: ParityLimits) -> bool:
    """Whether near ties alone can take more agreement than a default limit allows.

    The artefact must hold the limit on the other images, and its answers must hardly diverge.
    """
    if not (limits.by_interval and limits.near_ties and parity.clear) or parity.kl is None:
        return False
    ties = 1 - parity.clear.images / parity.images
    many = ties > 1 - limits.agreement
    return many and parity.clear.holds(limits.agreement) and parity.kl <= LITTLE_KL


def excused(parity: Parity, limits: ParityLimits) -> tuple[str, ...]:
    """Return the line that says that near ties, not the file, took the agreement, if they did."""
    _, agreement = parity.headline
    if not are_tied(parity, limits) or parity.clear is None or agreement >= limits.agreement:
        return ()
    rest = parity.clear
    others = (
        "" if rest.agreement is None else f"; on the other {rest.images} it is {rest.agreement:.3f}"
    )
    return (
        f"agreement {agreement:.3f} says little: on {parity.images - rest.images} "
        f"of {parity.images} images the float model's two best classes lie within {rest.step:.2g}, "
        f"one step of int8{others}",
    )


def notes(parity: Parity, limits: ParityLimits) -> tuple[str, ...]:
    """Return the lines that say how far the images decide."""
    return (*left_open(parity, limits), *excused(parity, limits))


def judge(parity: Parity, limits: ParityLimits) -> Verdict:
    """Compare a parity with its limits."""
    reasons = []
    # Written as `not >=` so that a NaN fails.
    word, agreement = parity.headline
    tied = are_tied(parity, limits)
    if not (agreement >= limits.agreement or is_open(parity, limits) or tied):
        reasons.append(f"{word} {agreement:.3f} is below {limits.agreement:g}")
    most = limits.of_most and parity.kl is not None and parity.kl <= LITTLE_KL
    error = parity.relative_error_90 if most else parity.relative_error
    if not error <= limits.relative_error:
        of = " of nine images in ten" if most else ""
        reasons.append(
            f"logit error {error:.2g} of the largest logit{of} is above {limits.relative_error:g}"
        )
    least = min(limits.agreement, OWN_PIXELS)
    # An artefact that misses on kedge's pixels misses on any: that is no fault of the pipeline.
    own = parity.own_pixels
    untied = own.clear if tied and own and own.clear else own
    if not reasons and own and untied and untied.interval[1] < least:
        reasons.append(_on_own_pixels(own, least))
    # Without true classes: accuracy can't fall by more than the answers that differ.
    lost = 1 - agreement if parity.drop is None else parity.drop
    if limits.drop is not None and not lost <= limits.drop:
        reasons.append(
            f"accuracy drop {100 * lost:.2g} points is above {100 * limits.drop:g} points"
        )
    return Verdict(tuple(reasons))


def _on_own_pixels(own: OwnPixels, least: float) -> str:
    low, high = own.interval
    fault = (
        f"agreement on own pixels, loaded by {own.library}, is {own.agreement:.3f} (95 % CI "
        f"{low:.3f} to {high:.3f}), below {least:g}"
    )
    if own.float_agreement >= least:
        return (
            f"{fault}: the float model has {own.float_agreement:.3f} on kedge's pixels, so the "
            "precision is the cause: choose a wider one, such as float16"
        )
    return (
        f"{fault}: the pipeline loads other pixels than kedge: check --preprocess; "
        "kedge fit-input finds it from labelled images"
    )
