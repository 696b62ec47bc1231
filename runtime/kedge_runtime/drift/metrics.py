"""Measure how far two sets of answers are apart, over [images, classes] arrays.

`reference` are the float model's logits, `candidate` the artefact's, both float32; `kl` takes
probabilities.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats

# What must be equal: the best class, the set of independent classes, or only the direction.
AgreementBy = Literal["best", "labels", "cosine"]


def top_k_agreement(reference: Floats, candidate: Floats, k: int) -> float:
    """Return the share of images whose best class by `reference` is among `candidate`'s k best."""
    best = reference.argmax(axis=1)
    ranked = np.argsort(-candidate, axis=1, kind="stable")[:, :k]
    return float((ranked == best[:, None]).any(axis=1).mean())


def label_agreement(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> float:
    """Return the share of images with equal sets of independent classes, both [images, classes]."""
    return float((reference == candidate).all(axis=1).mean())


def max_error(reference: Floats, candidate: Floats) -> float:
    """Return the largest absolute difference of any logit."""
    return float(np.abs(reference - candidate).max())


def mean_error(reference: Floats, candidate: Floats) -> float:
    """Return the mean absolute difference of the logits."""
    return float(np.abs(reference - candidate).mean())


def relative_error(reference: Floats, candidate: Floats, *, images: float = 1.0) -> float:
    """Return the largest absolute difference as a share of the largest reference logit.

    `images`: of that share of the images only, those with the least.
    """
    each = np.abs(reference - candidate).max(axis=1)
    return float(np.quantile(each, images)) / max(float(np.abs(reference).max()), 1e-12)


def cosine(reference: Floats, candidate: Floats) -> float:
    """Return the mean over images of the cosine between the two logit vectors."""
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


def kl(reference: Floats, candidate: Floats, *, multi_label: bool) -> float:
    """Return the mean over images of KL(reference || candidate) in nats, of probabilities.

    Independent classes (`multi_label`) add up their two-valued divergences.
    """
    p, q = _floored(reference), _floored(candidate)
    terms = p * np.log(p / q)
    if multi_label:
        terms += (1 - p) * np.log((1 - p) / (1 - q))
    return float(terms.sum(axis=1).mean())


def _floored(values: Floats) -> NDArray[np.float64]:
    return np.clip(values.astype(np.float64), 1e-12, 1 - 1e-12)


def sqnr(reference: Floats, found: Floats) -> float:
    """Return the ratio of signal to error power in dB."""
    signal = np.square(reference, dtype=np.float64).sum()
    noise = np.square(reference - found, dtype=np.float64).sum()
    return float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))
