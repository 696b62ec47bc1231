"""Write `report.md` for pull requests and GitHub's job summaries, readable as plain text."""

from collections.abc import Iterator, Sequence

from kedge_convert.matrix import figures
from kedge_convert.matrix.record import BuildReport, CellReport
from kedge_runtime.output import printable

COLUMNS = ("", "artefact", "top-1 drop", "agreement", "size", "of float32", "ms")


def render(report: BuildReport) -> str:
    """Return a heading, a table of all cells, and the remarks on each cell."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: BuildReport) -> Iterator[str]:
    shape = figures.SHAPES[report.verdict]
    yield f"## {shape} kedge build: {report.verdict}"
    yield ""
    yield figures.counts(report)
    yield ""
    yield _row(COLUMNS)
    yield _row(["---", "---", *["--:"] * 5])
    for cell in report.cells:
        yield _row([f"{figures.SHAPES[cell.verdict]} {cell.verdict}", *map(_escaped, _cells(cell))])
    for cell in report.cells:
        yield from _remarks(cell)


def _cells(cell: CellReport) -> list[str]:
    return [cell.name, *figures.figures(cell).values()]


def _remarks(cell: CellReport) -> Iterator[str]:
    if lines := list(figures.remarks(cell)):
        yield from (
            "",
            f"**{_escaped(cell.name)}**",
            "",
            *(f"- {_escaped(line)}" for line in lines),
        )


def _row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _escaped(text: str) -> str:
    """Return a text that stays in one table cell and holds no markup: names come from the user."""
    text = printable(" ".join(text.split()))
    for sign in "\\`*_|<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return text
