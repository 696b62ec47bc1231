"""Set the float model beside an artefact, in rows for the page: figures, classes, thresholds."""

from collections.abc import Iterator
from dataclasses import dataclass

from kedge_convert.matrix.plots import accuracy_of, answered_share
from kedge_convert.matrix.record import CellReport
from kedge_convert.matrix.tables import NOTHING, megabytes
from kedge_runtime.drift.by_class import ClassDrift, Confusion, Counts
from kedge_runtime.drift.report import Accuracy, Coverage, CoveragePoint, Drift, number, points
from kedge_runtime.drift.sentences import expected
from kedge_runtime.output import percent

CLASSES = 20  # in the page; report.json has all
SHOWN_THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class PairedRow:
    """Hold one figure of both sides, and a remark such as the interval of their difference."""

    name: str
    reference: str
    artefact: str
    remark: str = ""


def figures(cell: CellReport) -> Iterator[PairedRow]:
    """Yield the figures of an artefact beside those of its float model."""
    yield PairedRow("size", megabytes(_float_bytes(cell)), megabytes(cell.bytes), _ratio(cell))
    if cell.drift:
        yield from _measured(cell.drift)


def _float_bytes(cell: CellReport) -> int | None:
    return round(cell.bytes / cell.ratio) if cell.bytes and cell.ratio else None


def _ratio(cell: CellReport) -> str:
    return "" if cell.ratio is None else f"{100 * cell.ratio:.0f} % of the float32 weights"


def _measured(drift: Drift) -> Iterator[PairedRow]:
    for name, accuracy in (("top-1 accuracy", drift.top1), ("top-5 accuracy", drift.top5)):
        if accuracy:
            yield _accuracy(name, accuracy)
    agreement = drift.agreement
    interval = f"{number(agreement.low)} to {percent(agreement.high)}"
    word = "same answer" if drift.agreement_by == "best" else "same label set"
    yield PairedRow(word, percent(1), percent(agreement.value), interval)
    if drift.calibration:
        yield PairedRow(
            "calibration error",
            percent(drift.calibration.reference.ece),
            percent(drift.calibration.artefact.ece),
            f"change {points(drift.calibration.shift)}",
        )
    yield from _confidence(drift)
    entropy = drift.entropy
    yield PairedRow(
        "entropy", f"{entropy.reference:.3f}", f"{entropy.artefact:.3f}", "0 sure, 1 no idea"
    )
    remark = "nats; good int8: 0.003 to 0.03"
    yield PairedRow("divergence (KL)", "0", f"{max(0.0, drift.distances.kl):.4f}", remark)
    latency = f"{drift.latency.median_ms:.1f} ms"
    yield PairedRow("time per image", NOTHING, latency, f"on {drift.artefact.engine}")


def _confidence(drift: Drift) -> Iterator[PairedRow]:
    if drift.confidence is None:
        return
    if plain := drift.confidence.uncalibrated:
        remark = f"without its temperature, {drift.confidence.temperature:g}"
        yield PairedRow("uncalibrated", NOTHING, percent(plain.value), remark)
    for coverage in drift.confidence.coverage:
        held = NOTHING if coverage.held is None else percent(coverage.held.value)
        yield PairedRow(f"{percent(coverage.asked, 0)} coverage", NOTHING, held, expected(coverage))


def _accuracy(name: str, accuracy: Accuracy) -> PairedRow:
    drop = accuracy.drop
    remark = f"drop {points(drop.value)}, {number(drop.low)} to {number(drop.high)}"
    return PairedRow(name, percent(accuracy.reference), percent(accuracy.artefact), remark)


def classes(drift: Drift) -> tuple[ClassDrift, ...]:
    """Return the classes to list, first those that lose most; of many only those that flip."""
    if drift.per_class is None:
        return ()

    def order(each: ClassDrift) -> tuple[int, int, float, int]:
        return (each.gained or 0) - (each.lost or 0), -each.flips, each.p, each.index

    found = drift.per_class.classes
    listed = [each for each in found if each.flips or len(found) <= CLASSES]
    return tuple(sorted(listed, key=order)[:CLASSES])


def coverage(found: Coverage) -> Iterator[PairedRow]:
    """Yield what both sides answer at some thresholds, and how much of it is right."""
    for reference, artefact in zip(found.reference, found.artefact, strict=True):
        if reference.threshold in SHOWN_THRESHOLDS:
            sides = _answered(found.reference, reference), _answered(found.artefact, artefact)
            yield PairedRow(f"{100 * reference.threshold:.0f} %", *sides)


def _answered(side: tuple[CoveragePoint, ...], at: CoveragePoint) -> str:
    right = accuracy_of(at)
    known = "" if right is None else f", {percent(right)} right"
    return f"{percent(answered_share(side, at))}{known}"


@dataclass(frozen=True)
class HeatCell:
    """Hold a count of a confusion matrix and its share of the row, 0..1."""

    count: int
    share: float


def heat(counts: Counts) -> list[list[HeatCell]]:
    """Return the cells of a confusion matrix."""
    return [[HeatCell(n, n / max(sum(row), 1)) for n in row] for row in counts]


def matrices(found: Confusion) -> Iterator[tuple[str, list[list[HeatCell]]]]:
    """Yield the confusion matrices by their side."""
    if found.reference:
        yield "float model", heat(found.reference)
    if found.artefact:
        yield "artefact", heat(found.artefact)
