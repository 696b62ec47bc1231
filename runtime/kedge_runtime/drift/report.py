"""Hold the result of `kedge drift` as records (docs/json.md); reports are drawn from them.

Shares and probabilities are 0..1. A drop is the reference's accuracy minus the artefact's: positive
is a loss. A figure is None without what it needs: ground truth, outputs of the same kind.

People read shares in percent, drops and differences in points.
"""

from dataclasses import asdict, dataclass
from typing import Any

from kedge_runtime.classify.results import Prediction
from kedge_runtime.drift.by_class import Confusion, PerClass
from kedge_runtime.drift.confidence_report import ConfidenceDrift
from kedge_runtime.drift.gates import Estimate, Gate, Holds, Pairs, Verdict
from kedge_runtime.drift.journal import Failure
from kedge_runtime.drift.statistics import AgreementBy
from kedge_runtime.output import percent


@dataclass(frozen=True)
class Accuracy:
    """Hold both sides' accuracy; `drop` has its paired interval."""

    reference: float
    artefact: float
    pairs: Pairs
    drop: Estimate
    mcnemar: float


@dataclass(frozen=True)
class MarginBin:
    """Count the images whose reference margin is in low..high, and the flips among them."""

    low: float
    high: float
    images: int
    flips: int


@dataclass(frozen=True)
class LabelSet:
    """Hold a set of independent classes: its size and some names.

    `listed`: first the names that the other side lacks.
    """

    count: int
    listed: tuple[str, ...]

    def __str__(self) -> str:
        """Return the set in words."""
        more = self.count - len(self.listed)
        return " + ".join([*self.listed, *([f"{more} more"] if more else [])]) or "no label"


@dataclass(frozen=True)
class SideAnswer:
    """Hold one side's answer to an image: the `best` class, or the `labels` of independent ones."""

    best: Prediction | None
    margin: float
    labels: LabelSet | None = None


@dataclass(frozen=True)
class Flip:
    """Hold an image that the two sides answer differently; `truth`: the true class's name."""

    image: str
    reference: SideAnswer
    artefact: SideAnswer
    truth: str | None


@dataclass(frozen=True)
class Flips:
    """Count all flips; `listed`: those with the largest reference margin, breakdown.MAX_LISTED."""

    count: int
    by_margin: tuple[MarginBin, ...]
    listed: tuple[Flip, ...]


@dataclass(frozen=True)
class ConfidenceBin:
    """Hold the images whose confidence is in low..high.

    `accuracy`, `confidence`: their means; None in an empty bin.
    """

    low: float
    high: float
    images: int
    accuracy: float | None
    confidence: float | None


@dataclass(frozen=True)
class Calibration:
    """Hold the expected calibration error, 0..1, and the bins of its reliability diagram."""

    ece: float
    bins: tuple[ConfidenceBin, ...]


@dataclass(frozen=True)
class Calibrations:
    """Hold both sides' calibration; `shift`: the artefact's error minus the reference's."""

    reference: Calibration
    artefact: Calibration
    shift: float


@dataclass(frozen=True)
class CoveragePoint:
    """Count the answers of one side with a confidence of `threshold` or more.

    `right`: those that are right; None without ground truth.
    """

    threshold: float
    answered: int
    right: int | None


@dataclass(frozen=True)
class Coverage:
    """Hold what both sides answer if lower confidences count as unknown."""

    reference: tuple[CoveragePoint, ...]
    artefact: tuple[CoveragePoint, ...]


@dataclass(frozen=True)
class Entropy:
    """Hold the mean normalised entropy, 0 (certain) to 1 (uniform).

    `shift`: the artefact's minus the reference's.
    """

    reference: float
    artefact: float
    shift: Estimate


@dataclass(frozen=True)
class Distances:
    """Hold the distances of the outputs.

    `kl` in nats, `sqnr` in dB; the errors in units of the outputs.
    All but `kl` are None when one side returns logits and the other probabilities.
    """

    kl: float
    sqnr: float | None
    cosine: float | None
    max_error: float | None
    mean_error: float | None


@dataclass(frozen=True)
class Latency:
    """Hold the milliseconds from decoded pixels to outputs, on this machine at this time."""

    median_ms: float
    p90_ms: float


@dataclass(frozen=True)
class ArtefactDrift:
    """Describe the artefact that ran; `ratio`: its size as a share of the float32 weights."""

    path: str
    digest: str
    target: str
    precision: str
    engine: str
    library: str
    threads: int
    delegate: str | None
    bytes: int
    ratio: float | None


@dataclass(frozen=True)
class AttributionStep:
    """Hold one step from Keras to the device, and what it adds to the drift.

    `what`: the two links that were compared. `drop`: the accuracy before minus after the step, None
    without ground truth. `disagreement`: what it adds to the share of images that Keras answers
    differently, maybe negative. `flips`: the share of images whose answer it changes.
    """

    name: str
    what: str
    drop: Estimate | None
    disagreement: float
    flips: float


@dataclass(frozen=True)
class Attribution:
    """Hold what each step adds to the drift, on `images` images.

    The steps' drops add up to `drop`, their disagreements to `disagreement`, exactly.
    """

    images: int
    steps: tuple[AttributionStep, ...]
    drop: Estimate | None
    disagreement: float


@dataclass(frozen=True)
class Drift:
    """Hold the drift of one artefact from the reference, on `images` images.

    `agreement_by`: `best` where the best classes must be equal, `labels` where the whole sets of
    independent classes must be; those have no top-5 and no drift by class. Nor has a top-5 what has
    five classes or fewer. `holds`: the strictest gates that these images pass; `default_gate`:
    whether the user gave none; `calibration_images`: how many of the images calibrated the
    artefact; `confidence`: None unless `kedge calibrate` or `kedge convert` fitted it.
    """

    artefact: ArtefactDrift
    verdict: Verdict
    gates: tuple[Gate, ...]
    images: int
    failed: tuple[Failure, ...]
    top1: Accuracy | None
    top5: Accuracy | None
    agreement: Estimate
    agreement_top5: Estimate | None
    flips: Flips
    per_class: PerClass | None
    calibration: Calibrations | None
    entropy: Entropy
    distances: Distances
    latency: Latency
    holds: Holds
    confusion: Confusion | None = None
    coverage: Coverage | None = None
    attribution: Attribution | None = None
    agreement_by: AgreementBy = "best"
    default_gate: bool = False
    calibration_images: int = 0
    confidence: ConfidenceDrift | None = None


@dataclass(frozen=True)
class ReferenceReport:
    """Describe the reference; `images`: the number in it; `tools`: library versions."""

    path: str
    digest: str
    source: str
    weights_digest: str
    images: int
    tools: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """Hold one run of `kedge drift`: what `--json` prints.

    `folder`: of the images; `images`: the number in it; `truth`: the value of `--truth`;
    `by_layer`: a plain object for each artefact (docs/localisation.md), None where not asked for.
    """

    schema: int = 1
    command: str = "drift"
    machine: dict[str, Any]
    folder: str
    images: int
    truth: str
    reference: ReferenceReport
    verdict: Verdict
    drifts: tuple[Drift, ...]
    by_layer: tuple[dict[str, Any], ...] | None = None

    def plain(self) -> dict[str, Any]:
        """Return the documented object; `by_layer` is left out without `--by-layer`."""
        data = asdict(self)
        if self.by_layer is None:
            del data["by_layer"]
        return data


def number(share: float, digits: int = 1) -> str:
    """Write a share or a difference times 100, without its unit; a zero has no sign."""
    return f"{round(100 * share, digits) or 0.0:.{digits}f}"


def points(difference: float, digits: int = 1) -> str:
    """Write a difference of shares, -1..1, as `0.4 points`."""
    return f"{number(difference, digits)} points"


def share_interval(value: Estimate) -> str:
    """Write a share with its interval, as `98.2 % (96.6 to 99.1)`."""
    return f"{percent(value.value)} ({number(value.low)} to {number(value.high)})"


def drop_interval(value: Estimate, digits: int = 1) -> str:
    """Write a drop with its interval, as `0.4 points (-0.3 to 1.1)`: positive is a loss."""
    low, high = (number(end, digits) for end in (value.low, value.high))
    return f"{points(value.value, digits)} ({low} to {high})"


def judged(gate: Gate, digits: int = 1) -> str:
    """Write a gate's figure and limit: `agreement 98.2 % (96.6 to 99.1), at least 95.0 %`."""
    if gate.name == "max_drop":
        figure = f"top-1 drop {drop_interval(gate.value, digits)}"
    else:
        figure = f"agreement {share_interval(gate.value)}"
    return f"{figure}, {limit(gate, digits)}"


def limit(gate: Gate, digits: int = 1) -> str:
    """Write a gate's limit, as `at most 1.0 points`."""
    if gate.name == "max_drop":
        return f"at most {points(gate.limit, digits)}"
    return f"at least {percent(gate.limit)}"
