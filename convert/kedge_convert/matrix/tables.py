"""Write a build's figures and tables: for `report.md` and for the terminal.

Shares are in percent, drops in points (positive is a loss). `report.md` is for pull requests and
GitHub's job summaries, and readable as plain text.
"""

from collections.abc import Iterator, Sequence

from kedge_convert.matrix.record import BuildReport, CellReport
from kedge_runtime.drift.gates import Verdict
from kedge_runtime.drift.report import SideAnswer, drop_interval, percent, share_interval
from kedge_runtime.errors import counted
from kedge_runtime.output import page, paint
from kedge_runtime.printable import printable

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


COLUMNS = ("", "artefact", "top-1 drop", "agreement", "size", "of float32", "ms")


def markdown(report: BuildReport) -> str:
    """Return a heading, a table of all cells, and the remarks on each cell."""
    return "\n".join(_markdown_lines(report)) + "\n"


def _markdown_lines(report: BuildReport) -> Iterator[str]:
    shape = SHAPES[report.verdict]
    yield f"## {shape} kedge build: {report.verdict}"
    yield ""
    yield counts(report)
    yield ""
    yield _markdown_row(COLUMNS)
    yield _markdown_row(["---", "---", *["--:"] * 5])
    for cell in report.cells:
        yield _markdown_row(
            [f"{SHAPES[cell.verdict]} {cell.verdict}", *map(_escaped, _cells(cell))]
        )
    for cell in report.cells:
        yield from _markdown_remarks(cell)


def _cells(cell: CellReport) -> list[str]:
    return [cell.name, *figures(cell).values()]


def _markdown_remarks(cell: CellReport) -> Iterator[str]:
    if lines := list(remarks(cell)):
        yield from (
            "",
            f"**{_escaped(cell.name)}**",
            "",
            *(f"- {_escaped(line)}" for line in lines),
        )


def _markdown_row(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _escaped(text: str) -> str:
    """Return a text that stays in one table cell and holds no markup: names come from the user."""
    text = printable(" ".join(text.split()))
    for sign in "\\`*_|<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return text


COLOURS: dict[Verdict, str] = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def terminal(report: BuildReport) -> str:
    """Return a line for each cell, followed by its remarks."""
    return page(_terminal_lines(report)) + "\n"


def _terminal_lines(report: BuildReport) -> Iterator[str]:
    for cell in report.cells:
        origin = "" if cell.path is None else f"  {'cached' if cell.cached else 'built'}"
        yield f"{_coloured(cell.verdict)} {paint(cell.name, bold=True)}{origin}"
        values = [f"{name} {value}" for name, value in figures(cell).items() if value != NOTHING]
        if cell.path is not None:
            yield f"    {', '.join(values)}"
        yield from (f"    {line}" for line in remarks(cell))
    yield ""
    yield f"{_coloured(report.verdict)} {counts(report)}"


def _coloured(verdict: Verdict) -> str:
    return paint(f"{SHAPES[verdict]} {verdict}", COLOURS[verdict], bold=True)
