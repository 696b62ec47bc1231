"""The result of `kedge drift` as records: what docs/json.md documents and reports are drawn from.

Shares and probabilities are 0..1, a drop is the original's share minus the artefact's. A figure
that needs what isn't there (labels, outputs of the same kind) is None.
"""

from dataclasses import dataclass

from kedge_runtime.classify.results import Prediction
from kedge_runtime.drift.gates import Estimate, Gate, Pairs, Verdict
from kedge_runtime.drift.journal import Failure
from kedge_runtime.drift.metrics import AgreementBy


@dataclass(frozen=True)
class Accuracy:
    """Both sides against the true classes; `drop` with its paired interval."""

    original: float
    artefact: float
    pairs: Pairs
    drop: Estimate
    mcnemar: float


@dataclass(frozen=True)
class MarginBin:
    """Pictures whose margin by the original is in low..high, and how many of them flipped."""

    low: float
    high: float
    pictures: int
    flips: int


@dataclass(frozen=True)
class Labels:
    """A set of independent classes: `count` of all, and the names of some, those first that the
    other side doesn't give.
    """

    count: int
    listed: tuple[str, ...]

    def __str__(self) -> str:
        """Return the set in words."""
        more = self.count - len(self.listed)
        return " + ".join([*self.listed, *([f"{more} more"] if more else [])]) or "no label"


@dataclass(frozen=True)
class Side:
    """One side's answer to one picture: the `best` class or, of independent ones, the `labels`."""

    best: Prediction | None
    margin: float
    labels: Labels | None = None


@dataclass(frozen=True)
class Flip:
    """A picture that the two sides answer differently; `truth` is the true class's name."""

    image: str
    original: Side
    artefact: Side
    truth: str | None


@dataclass(frozen=True)
class Flips:
    """`count` of all; `listed` are those of which the original was surest, MOST of them."""

    count: int
    by_margin: tuple[MarginBin, ...]
    listed: tuple[Flip, ...]


@dataclass(frozen=True)
class ClassDrift:
    """One class: with labels, its pictures that were lost and gained; without, those whose best
    class by the original it is, and how many of them flipped. `p`: see per_class; `q`: the same
    adjusted for the number of classes.
    """

    index: int
    id: str
    name: str
    pictures: int
    flips: int
    lost: int | None
    gained: int | None
    p: float
    q: float


@dataclass(frozen=True)
class PerClass:
    """`drifted`: the classes with q <= `level`, the false discovery rate; `classes`: every class
    that any picture is of, or flipped in, with the smallest p first.
    """

    by: str
    level: float
    tested: int
    drifted: int
    classes: tuple[ClassDrift, ...]


@dataclass(frozen=True)
class ConfidenceBin:
    """Pictures whose confidence is in low..high: how sure their answers are, and how often right.

    `accuracy` and `confidence` are None in an empty bin.
    """

    low: float
    high: float
    pictures: int
    accuracy: float | None
    confidence: float | None


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error, 0..1, and the bins of its reliability diagram."""

    ece: float
    bins: tuple[ConfidenceBin, ...]


@dataclass(frozen=True)
class Calibrations:
    """Both sides' calibration; `shift` is the artefact's error minus the original's."""

    original: Calibration
    artefact: Calibration
    shift: float


@dataclass(frozen=True)
class Entropy:
    """Mean normalised entropy, 0 (sure) to 1 (no idea); `shift`: artefact minus original."""

    original: float
    artefact: float
    shift: Estimate


@dataclass(frozen=True)
class Distances:
    """How far the outputs are apart: `kl` in nats, `sqnr` in dB, errors in units of the outputs.

    All but `kl` are None when the original gives logits and the artefact probabilities.
    """

    kl: float
    sqnr: float | None
    cosine: float | None
    max_error: float | None
    mean_error: float | None


@dataclass(frozen=True)
class Latency:
    """From decoded pixels to outputs, milliseconds; a figure of this machine, at this time."""

    median_ms: float
    p90_ms: float


@dataclass(frozen=True)
class ArtefactDrift:
    """What ran: `ratio` is its size to that of the original's weights in float32."""

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
    """One step from Keras to the device, and what it adds to the drift.

    `drop`: accuracy before it minus after it, None without labels; `disagreement`: how much it adds
    to the share of pictures whose answer isn't Keras's, which may be less than nothing; `flips`:
    the share of pictures whose answer it changes. `what`: the two ends that were compared.
    """

    name: str
    what: str
    drop: Estimate | None
    disagreement: float
    flips: float


@dataclass(frozen=True)
class Attribution:
    """Where the drift from Keras's own path comes from, on `pictures` pictures.

    The steps' drops add up to `drop`, their disagreements to `disagreement`, exactly.
    """

    pictures: int
    steps: tuple[AttributionStep, ...]
    drop: Estimate | None
    disagreement: float


@dataclass(frozen=True)
class Drift:
    """One artefact against the original, on `pictures` pictures.

    `agreement_by`: `best` where the best classes have to be equal, `labels` where the whole sets of
    independent ones have; these have neither a best five nor drifts per class.
    """

    artefact: ArtefactDrift
    verdict: Verdict
    gates: tuple[Gate, ...]
    pictures: int
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
    attribution: Attribution | None = None
    agreement_by: AgreementBy = "best"
