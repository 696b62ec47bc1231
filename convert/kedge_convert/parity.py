"""The parity check: a sealed file, through the runtime, against the float original."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kedge_convert import metrics
from kedge_convert.photos import Tick
from kedge_convert.toolkit import quiet
from kedge_runtime.classifier import Classifier
from kedge_runtime.contract import Activation, Precision
from kedge_runtime.head import Floats


@dataclass(frozen=True)
class Parity:
    """How far an artefact has moved from the float original on `images` pictures.

    Agreements are shares of pictures, errors are in logits, `sqnr` is in dB, `kl` in nats.
    """

    images: int
    top1: float
    top5: float
    logit_max_error: float
    logit_mean_error: float
    relative_error: float
    cosine: float
    sqnr: float
    kl: float


@dataclass(frozen=True)
class Limits:
    """What passes: the least top-1 agreement and the largest relative logit error."""

    top1: float
    relative_error: float


# float32 differs by the order of sums only, float16 by an 11-bit mantissa (MobileNetV2: 1.4e-2).
# For integers the agreement decides: their largest logit error says little about the answers.
LIMITS: dict[Precision, Limits] = {
    "float32": Limits(0.99, 1e-4),
    "float16": Limits(0.98, 2e-2),
    "dynamic": Limits(0.90, 1.0),
    "int8": Limits(0.90, 1.0),
}


@dataclass(frozen=True)
class Verdict:
    """Passed, or the reasons why not."""

    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the artefact."""
        return not self.reasons


def answers(path: Path, photos: Sequence[Path], tick: Tick = lambda: None) -> Floats:
    """Return the sealed file's logits, [images, classes], as a device would compute them."""
    with quiet():
        classifier = Classifier.open(path)
    rows = []
    for photo in photos:
        rows.append(classifier.outputs(photo))
        tick()
    return np.stack(rows)


def compare(reference: Floats, candidate: Floats, activation: Activation) -> Parity:
    """Measure the distance between two sets of logits, both [images, classes]."""
    return Parity(
        images=len(reference),
        top1=metrics.top_k_agreement(reference, candidate, 1),
        top5=metrics.top_k_agreement(reference, candidate, 5),
        logit_max_error=metrics.max_error(reference, candidate),
        logit_mean_error=metrics.mean_error(reference, candidate),
        relative_error=metrics.relative_error(reference, candidate),
        cosine=metrics.cosine(reference, candidate),
        sqnr=metrics.sqnr(reference, candidate),
        kl=metrics.divergence(reference, candidate, activation),
    )


def limits_for(precision: Precision, **overrides: float | None) -> Limits:
    """Return the limits of a precision, with the user's own where given."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return replace(LIMITS[precision], **given)


def judge(parity: Parity, limits: Limits) -> Verdict:
    """Hold a parity against its limits."""
    reasons = []
    # Written as `not >=` so that a NaN fails.
    if not parity.top1 >= limits.top1:
        reasons.append(f"top-1 agreement {parity.top1:.3f} is below {limits.top1:g}")
    if not parity.relative_error <= limits.relative_error:
        reasons.append(
            f"logit error {parity.relative_error:.2g} of the largest logit "
            f"is above {limits.relative_error:g}"
        )
    return Verdict(tuple(reasons))
