"""Judge a parity: the limits of each precision, the user's own, and the reasons of a verdict."""

import math
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

from kedge_convert.parity import OwnPixels, Parity
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.errors import counted


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


def is_settled(parity: Parity, limits: ParityLimits) -> bool:
    """Whether the whole interval of the agreement holds a default limit, and its error does."""
    interval = parity.agreement_interval
    if not limits.by_interval or limits.drop is not None or interval is None:
        return False
    return interval[0] >= limits.agreement and judge(parity, limits).passed


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


def after_misses(limits: ParityLimits, parity: Parity, misses: int) -> ParityLimits:
    """Return the limits of a budget for another try on the same images, after so many misses.

    The best of several noisy figures flatters itself by the expected largest of that many normal
    ones (Blom 1958), in standard errors. Each file is measured on `parity.images`.
    """
    errors = NormalDist().inv_cdf((misses + 0.625) / (misses + 1.25))
    share = limits.agreement
    agreement = share + errors * math.sqrt(share * (1 - share) / parity.images)
    # Each answer that differs moves the accuracy by at most one image.
    differ = max(1 - parity.headline[1], 0.0)
    drop = limits.drop
    if drop is not None:
        drop -= errors * math.sqrt(differ / parity.images)
    return replace(
        limits, agreement=limits.agreement if limits.by_interval else agreement, drop=drop
    )


def budget_miss(parity: Parity, limits: ParityLimits) -> str:
    """Return the words for a missed limit of the user's own budget, "" where it holds."""
    word, agreement = parity.headline
    if not limits.by_interval and not agreement >= limits.agreement:
        count = counted(parity.images, "image")
        return f"{word} {agreement:.3f} on {count}, below {limits.agreement:.4g}"
    lost = _lost(parity)
    if limits.drop is not None and not lost <= limits.drop:
        return f"accuracy drop {100 * lost:.2g} points, above {100 * limits.drop:.2g}"
    return ""


def _lost(parity: Parity) -> float:
    """Return the drop; without true classes accuracy can't fall by more than answers differ."""
    # 1 - .99 is a bit above .01 in binary.
    return round(1 - parity.headline[1], 9) if parity.drop is None else parity.drop


def notes_on(parity: Parity, limits: ParityLimits) -> tuple[str, ...]:
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
    lost = _lost(parity)
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
