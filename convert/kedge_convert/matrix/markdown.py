"""`report.md`: for pull requests and GitHub's job summaries, readable as plain text."""

from collections.abc import Iterator

from kedge_convert.matrix import figures
from kedge_convert.matrix.record import BuildReport, CellReport
from kedge_runtime.printable import printable

COLUMNS = ("", "artefact", "top-1", "agreement", "size", "of float32", "ms")


def render(report: BuildReport) -> str:
    """Return a heading, a table of all cells, and what is to be said of those that didn't pass."""
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
        yield from _words(cell)


def _cells(cell: CellReport) -> list[str]:
    return [cell.name, *figures.figures(cell).values()]


def _words(cell: CellReport) -> Iterator[str]:
    """Yield what didn't pass, what changed, and what should be known."""
    said = [f"{g.verdict} {g.name}: {g.said}" for g in cell.gates if g.verdict != "PASS"]
    if cell.baseline and cell.baseline.changed:
        said.append(f"differs from the accepted artefact ({figures.since(cell)})")
    said += cell.notes
    if said:
        yield from ("", f"**{_escaped(cell.name)}**", "", *(f"- {_escaped(line)}" for line in said))


def _row(values: "list[str] | tuple[str, ...]") -> str:
    return f"| {' | '.join(values)} |"


def _escaped(text: str) -> str:
    """Return a text that stays one cell and no markup: names come from the user."""
    text = printable(" ".join(text.split()))
    for sign in "\\`*_|<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return text
