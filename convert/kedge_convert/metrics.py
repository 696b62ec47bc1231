"""How far two sets of answers are apart: the runtime's own metrics, which a device uses too."""

from kedge_runtime.metrics import (
    cosine,
    divergence,
    kl,
    max_error,
    mean_error,
    relative_error,
    sqnr,
    top_k_agreement,
)

__all__ = [
    "cosine",
    "divergence",
    "kl",
    "max_error",
    "mean_error",
    "relative_error",
    "sqnr",
    "top_k_agreement",
]
