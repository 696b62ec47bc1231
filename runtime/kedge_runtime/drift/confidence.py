"""Measure a calibrated confidence on the images of a drift: its error, and its coverage."""

import numpy as np

from kedge_runtime.arrays import Doubles, Flags
from kedge_runtime.artefact.confidence import COVERAGES, Confidence
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.confidence.binomial import covered_ends
from kedge_runtime.confidence.conformal import rank
from kedge_runtime.confidence.coverage import SHOWN, TOP, shown
from kedge_runtime.confidence.error import calibration_error, gaps
from kedge_runtime.drift import gates
from kedge_runtime.drift.confidence_report import ConfidenceDrift, CoverageDrift
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.gates import Estimate
from kedge_runtime.drift.measure import Rows


def confidence_drift(
    evidence: Evidence, contract: Contract, fitted_images: int
) -> ConfidenceDrift | None:
    """Return what the images say of a contract's confidence; None where it has none.

    `fitted_images`: how many of them it was fitted to or measured on.
    """
    if contract.confidence is None:
        return None
    rows, true = evidence.rows, evidence.true
    right = None if true is None else evidence.best("artefact") == true
    return ConfidenceDrift(
        temperature=contract.output.temperature,
        error=_error(rows["artefact"]["confidence"], right),
        uncalibrated=_error(rows["uncalibrated"], right),
        coverage=tuple(
            _coverage(percent, contract.confidence, rows)
            for percent in shown(contract.confidence.floors)
        ),
        fitted_images=fitted_images,
    )


def _error(confidence: Doubles, right: Flags | None) -> Estimate | None:
    if right is None:
        return None
    return Estimate(*calibration_error(gaps(confidence, right)))


def _coverage(percent: int, confidence: Confidence, rows: Rows) -> CoverageDrift:
    floor, count = confidence.floors[COVERAGES.index(percent)], len(rows)
    held = rows["truth"].astype(np.float32) >= np.float32(floor)
    sizes = rows["sizes"][:, SHOWN.index(percent)]
    images = confidence.measured
    low, high = covered_ends(rank(images, percent), images, count)
    return CoverageDrift(
        asked=percent / 100,
        held=None if np.isnan(rows["truth"]).any() else gates.share(int(held.sum()), count),
        low=low / count,
        high=high / count,
        size=float(sizes.mean()),
        unknown=float(((sizes == 0) | (sizes > TOP)).mean()),
    )
