"""Compare images with what a model learned: by its batch norms, or by an artefact's sketch."""

import numpy as np
from numpy.typing import NDArray

from kedge_convert.calibration.finding import CalibrationFinding
from kedge_convert.fitting.subject import Norms
from kedge_runtime.arrays import Doubles
from kedge_runtime.field.folder import FieldReport

# Nats of each norm, of many images; few differ by chance (measured: docs/calibration.md).
FAR, BY_CHANCE = 0.05, 1.0
CHECK = "distribution"
REMEDY = (
    "calibrate with images like those that the model was trained for, and check --preprocess with "
    "`kedge fit-input`"
)


def distances(norms: Norms, moments: list[NDArray[np.float32]]) -> Doubles:
    """Return the distance of each image from the learned statistics, in nats of each norm."""
    return np.asarray(norms.divergence(moments) / len(norms.floors))


def by_norms(values: Doubles) -> CalibrationFinding:
    """Return what the distances of images say of all of them."""
    mean, limit = float(values.mean()), FAR + BY_CHANCE / len(values)
    result = f"{mean:.3f} nats from the statistics of the batch norms ({limit:.3f} at most)"
    far = mean > limit
    return CalibrationFinding(CHECK, "problem" if far else "ok", result, REMEDY if far else "")


def by_sketch(report: FieldReport) -> CalibrationFinding:
    """Return whether images differ from those that an artefact was made with."""
    alarms = [each.finding for each in report.findings if each.finding.kind == "alarm"]
    if not alarms:
        return CalibrationFinding(CHECK, "ok", "as the artefact's own calibration images")
    result = "; ".join(each.text("the first image") for each in alarms)
    return CalibrationFinding(CHECK, "problem", result, REMEDY)
