"""Write the figures of every report: shares in percent, drops in points (positive is a loss)."""

from collections.abc import Iterator

from kedge_convert.matrix.record import BuildReport, CellReport
from kedge_runtime.drift.figures import drop_interval, percent, share_interval
from kedge_runtime.drift.gates import Verdict
from kedge_runtime.drift.report import SideAnswer
from kedge_runtime.errors import counted

# A shape beside each colour, so that a report is readable without colours.
SHAPES: dict[Verdict, str] = {"PASS": "✔", "FAIL": "✘", "INCONCLUSIVE": "?"}
NOTHING = "-"


def megabytes(count: int | None) -> str:
    """Write a size, as `3.98 MB`; MB is 10^6 bytes."""
    return NOTHING if count is None else f"{count / 1e6:.2f} MB"


def times(ratio: float) -> str:
    """Write a ratio, as `0.41x`."""
    return f"{ratio:.2f}x"


def side(answer: SideAnswer) -> str:
    """Write one side's answer: the best class with its confidence, or a set of labels."""
    if answer.best is None:
        return str(answer.labels)
    return f"{answer.best.name}, {percent(answer.best.probability)}"


def counts(report: BuildReport) -> str:
    """Write e.g. `4 artefacts: 3 passed, 1 failed`."""
    total = counted(len(report.cells), "artefact")
    several = {
        "passed": report.count("PASS"),
        "failed": report.count("FAIL"),
        "inconclusive": report.count("INCONCLUSIVE"),
    }
    return f"{total}: {', '.join(f'{n} {word}' for word, n in several.items() if n)}"


def figures(cell: CellReport) -> dict[str, str]:
    """Return a cell's figures by the headings of their columns."""
    drift, ratio = cell.drift, cell.ratio
    return {
        "top-1 drop": drop_interval(drift.top1.drop) if drift and drift.top1 else NOTHING,
        "agreement": share_interval(drift.agreement) if drift else NOTHING,
        "size": megabytes(cell.bytes),
        "of float32": NOTHING if ratio is None else f"{100 * ratio:.0f} %",
        "ms": NOTHING if drift is None else f"{drift.latency.median_ms:.1f}",
    }


def remarks(cell: CellReport) -> Iterator[str]:
    """Yield the gates that didn't pass, a change from the baseline, and the notes."""
    for gate in cell.gates:
        if gate.verdict != "PASS":
            yield f"{gate.verdict} {gate.name}: {gate.message}"
    if cell.baseline and cell.baseline.changed:
        yield f"differs from the accepted artefact ({since(cell)})"
    yield from cell.notes


def since(cell: CellReport) -> str:
    """Write what changed since the baseline; there must be one."""
    before, now = cell.baseline, cell.bytes
    if before is None or now is None:
        raise AssertionError("no baseline to compare with")
    return f"{before.digest[:15]}..., {now - before.bytes:+d} bytes"
