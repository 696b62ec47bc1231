"""Write the table that `kedge build` prints."""

from collections.abc import Iterator

from kedge_convert.matrix import figures
from kedge_convert.matrix.record import BuildReport
from kedge_runtime.drift.gates import Verdict
from kedge_runtime.output import page, paint

COLOURS: dict[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def render(report: BuildReport) -> str:
    """Return a line for each cell, followed by its remarks."""
    return page(_lines(report)) + "\n"


def _lines(report: BuildReport) -> Iterator[str]:
    for cell in report.cells:
        origin = "" if cell.path is None else f"  {'cached' if cell.cached else 'built'}"
        yield f"{_coloured(cell.verdict)} {paint(cell.name, bold=True)}{origin}"
        values = [
            f"{name} {value}"
            for name, value in figures.figures(cell).items()
            if value != figures.NOTHING
        ]
        if cell.path is not None:
            yield f"    {', '.join(values)}"
        yield from (f"    {line}" for line in figures.remarks(cell))
    yield ""
    yield f"{_coloured(report.verdict)} {figures.counts(report)}"


def _coloured(verdict: Verdict) -> str:
    return paint(f"{figures.SHAPES[verdict]} {verdict}", COLOURS[verdict], bold=True)
