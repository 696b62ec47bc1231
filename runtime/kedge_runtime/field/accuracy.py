"""Estimate the accuracy in the field without labels, from the confidences.

- With ground truth at conversion: average thresholded confidence (ATC; Garg et al. 2022,
  arXiv:2201.04234). The threshold is the confidence that as large a share of the calibration images
  exceeds as was right; the share of frames that exceed it estimates their accuracy.
- Without: difference of confidences (DoC; Guillory et al. 2021, arXiv:2107.03315). The mean
  confidence lost estimates the accuracy lost.

Both read the model's own confidence: a class that it never learned, answered with certainty, counts
as right. So this is an estimate of what was lost, and no measurement.
"""

from dataclasses import dataclass

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.field.measure import CONFIDENCE
from kedge_runtime.field.sketch import Sketch

# Fewer frames say little: one standard error of a share of .9 is 5 points.
LEAST = 30


@dataclass(frozen=True)
class AccuracyEstimate:
    """Shares, 0..1: `calibration`'s and the field's accuracy, None without ground truth.

    `lost`: calibration's minus the field's, in shares; `frames`: of the estimate.
    """

    lost: float
    frames: int
    calibration: float | None = None

    @property
    def field(self) -> float | None:
        """The estimated accuracy in the field, None without ground truth."""
        return None if self.calibration is None else self.calibration - self.lost


def estimate(sketch: Sketch, values: Floats) -> AccuracyEstimate | None:
    """Return the estimate for the statistics of frames, [frames, statistics]; None for few."""
    if len(values) < LEAST:
        return None
    mean, right, threshold = sketch.accuracy
    confidence = values[:, CONFIDENCE]
    if np.isnan(right):
        return AccuracyEstimate(float(mean - confidence.mean()), len(values))
    return AccuracyEstimate(
        float(right - (confidence > threshold).mean()), len(values), float(right)
    )
