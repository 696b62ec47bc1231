"""Is a confidence of 80 % right in 80 % of cases? The expected calibration error.

The pictures are put into bins of equal width by the confidence of their best class; the error is
the mean over all pictures of |accuracy - confidence| of their bin (Naeini, Cooper and Hauskrecht
2015, AAAI 29; Guo et al. 2017, arXiv:1706.04599, equation 5).
"""

import numpy as np

from kedge_runtime.drift import report
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.intervals import Flags, Numbers

BINS = 15  # as in Guo et al.


def calibrations(evidence: Evidence) -> report.Calibrations | None:
    """Return both sides' calibration, or None without labels."""
    true = evidence.true
    if true is None:
        return None
    original, artefact = (
        calibration(evidence.rows[side]["confidence"], evidence.best(side) == true)
        for side in ("original", "artefact")
    )
    return report.Calibrations(original, artefact, artefact.ece - original.ece)


def calibration(confidence: Numbers, right: Flags) -> report.Calibration:
    """Return the calibration of answers with a confidence, 0..1, [n], and whether they're right."""
    edges = np.linspace(0, 1, BINS + 1)
    # A bin holds its upper edge, as in the source.
    places = np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sure = np.bincount(places, confidence, BINS)
    correct = np.bincount(places, right, BINS)
    bins = tuple(
        report.ConfidenceBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            pictures=int(count),
            accuracy=float(correct[i] / count) if count else None,
            confidence=float(sure[i] / count) if count else None,
        )
        for i, count in enumerate(counts)
    )
    return report.Calibration(float(np.abs(correct - sure).sum() / len(confidence)), bins)
