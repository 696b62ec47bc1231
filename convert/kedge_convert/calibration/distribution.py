"""Compare images with what a model learned: by its batch norms, or by an artefact's sketch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kedge_convert.calibration.finding import CalibrationFinding, named
from kedge_convert.fitting.subject import Norms
from kedge_runtime.arrays import Doubles
from kedge_runtime.field.folder import FieldReport

# Nats of each norm. See docs/calibration.md for what images of all kinds measure.
FAR = 0.5
# Distances from the median, in robust standard deviations, of an image that is not like the others.
ODD = 8.0
NORMAL = 1.4826  # the standard deviation of normal numbers by their median absolute deviation
CHECK, EACH = "distribution", "odd images"
REMEDY = (
    "calibrate with images like those that the model was trained for, and check --preprocess with "
    "`kedge fit-input`"
)


def distances(norms: Norms, moments: list[NDArray[np.float32]]) -> Doubles:
    """Return the distance of each image from the learned statistics, in nats of each norm."""
    return np.asarray(norms.divergence(moments) / len(norms.floors))


def by_norms(values: Doubles, paths: Sequence[Path]) -> Iterator[CalibrationFinding]:
    """Yield what the distances of images say of all of them, and of single ones."""
    mean = float(values.mean())
    result = f"{mean:.2f} nats from the statistics of the batch norms ({FAR:g} at most)"
    far = mean > FAR
    yield CalibrationFinding(CHECK, "problem" if far else "ok", result, REMEDY if far else "")
    yield _odd(values, paths)


def _odd(values: Doubles, paths: Sequence[Path]) -> CalibrationFinding:
    logs = np.log(np.maximum(values - values.min() + np.median(values), 1e-9))
    spread = NORMAL * float(np.median(np.abs(logs - np.median(logs))))
    found = np.flatnonzero(logs > np.median(logs) + ODD * max(spread, 0.05))
    if not found.size:
        return CalibrationFinding(EACH, "ok", "none")
    odd = tuple(paths[i] for i in found[np.argsort(-values[found])])
    remedy = "look at them: one image that differs widens the range of every tensor"
    return CalibrationFinding(EACH, "note", f"{len(odd)}: {named(odd)}", remedy, odd)


def by_sketch(report: FieldReport) -> CalibrationFinding:
    """Return whether images differ from those that an artefact was made with."""
    alarms = [each.finding for each in report.findings if each.finding.kind == "alarm"]
    if not alarms:
        return CalibrationFinding(CHECK, "ok", "as the artefact's own calibration images")
    result = "; ".join(each.text("the first image") for each in alarms)
    return CalibrationFinding(CHECK, "problem", result, REMEDY)
