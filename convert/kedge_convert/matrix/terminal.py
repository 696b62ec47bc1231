"""The table that `kedge build` prints."""

from collections.abc import Iterator

from kedge_convert.matrix import figures as words
from kedge_convert.matrix.record import BuildReport, CellReport
from kedge_runtime.drift.gates import Verdict
from kedge_runtime.output import page, paint

COLOURS: dict[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def render(report: BuildReport) -> str:
    """Return a line a cell, and under it what didn't pass."""
    return page(_lines(report)) + "\n"


def _lines(report: BuildReport) -> Iterator[str]:
    for cell in report.cells:
        found = "" if cell.path is None else f"  {'found' if cell.cached else 'made'}"
        yield f"{_coloured(cell.verdict)} {paint(cell.name, bold=True)}{found}"
        figures = [f"{name} {value}" for name, value in words.figures(cell).items()]
        if cell.path is not None:
            yield f"    {', '.join(each for each in figures if not each.endswith(words.NOTHING))}"
        yield from (f"    {line}" for line in _said(cell))
    yield ""
    yield f"{_coloured(report.verdict)} {words.counts(report)}"


def _said(cell: CellReport) -> Iterator[str]:
    for gate in cell.gates:
        if gate.verdict != "PASS":
            yield f"{gate.verdict} {gate.name}: {gate.said}"
    if cell.baseline and cell.baseline.changed:
        yield f"differs from the accepted artefact ({words.since(cell)})"
    yield from cell.notes


def _coloured(verdict: Verdict) -> str:
    word = f"{words.SHAPES[verdict]} {verdict}"
    return paint(word, COLOURS[verdict], bold=True)
