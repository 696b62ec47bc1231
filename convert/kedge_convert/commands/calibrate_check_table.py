"""Show the result of `kedge calibrate-check`: a table and what to do, or the JSON object."""

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from kedge_convert.calibration.finding import CalibrationFinding, CalibrationReport
from kedge_convert.commands.console import console
from kedge_runtime.errors import counted
from kedge_runtime.output import echo_folded

COLOURS = {"ok": "green", "note": "yellow", "problem": "red", "open": ""}
GOOD = "no problem found: the images can calibrate a conversion"


def page(report: CalibrationReport) -> None:
    """Print the table, what to do for each finding, and the verdict."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("check", "", "result"):
        table.add_column(heading)
    for each in report.findings:
        table.add_row(each.check, _status(each), each.result, style=COLOURS[each.status])
    console().print(table)
    for line in sentences(report):
        echo_folded(line)


def _status(finding: CalibrationFinding) -> str:
    return {"open": "-"}.get(finding.status, finding.status)


def sentences(report: CalibrationReport) -> Iterator[str]:
    """Yield what to do for each finding, problems first, and the verdict."""
    for status in ("problem", "note"):
        for each in report.findings:
            if each.status == status and each.remedy:
                yield f"{status}: {each.check}: {each.remedy}"
    problems = sum(each.status == "problem" for each in report.findings)
    yield f"{counted(problems, 'problem')}: see above what to do" if problems else GOOD


def plain(report: CalibrationReport, model: str | None) -> dict[str, Any]:
    """Return the report for JSON (docs/json.md)."""
    return {
        "schema": 1,
        "command": "calibrate-check",
        "folder": str(report.folder),
        "model": model,
        "images": report.images,
        "usable": report.usable,
        "drawn": report.drawn,
        "passed": not report.has_problem,
        "findings": [
            {
                "check": each.check,
                "status": each.status,
                "result": each.result,
                "remedy": each.remedy,
                "images": [str(path) for path in each.images],
            }
            for each in report.findings
        ],
    }
