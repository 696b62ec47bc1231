"""Hold what a drift says of a calibrated confidence as records (docs/json.md)."""

from dataclasses import dataclass

from kedge_runtime.drift.gates import Estimate


@dataclass(frozen=True)
class CoverageDrift:
    """Hold one coverage of the label sets: `asked` for, and `held` on these images.

    `held`: None without ground truth. `low`, `high`: the 95 % interval of what so many images that
    nothing was fitted to hold (beta-binomial). `size`: the mean number of labels. `unknown`: the
    share of sets that are empty or larger than 5.
    """

    asked: float
    held: Estimate | None
    low: float
    high: float
    size: float
    unknown: float


@dataclass(frozen=True)
class ConfidenceDrift:
    """Hold what these images say of the confidence that `kedge calibrate` fitted.

    `error`: the artefact's calibration error; `uncalibrated`: the same without its temperature;
    both None without ground truth. `fitted_images`: how many of the images it was fitted to or
    measured on.
    """

    temperature: float
    error: Estimate | None
    uncalibrated: Estimate | None
    coverage: tuple[CoverageDrift, ...]
    fitted_images: int
