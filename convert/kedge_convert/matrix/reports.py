"""Publish a build's reports: one function of the BuildReport for each file.

The format of `junit.xml` has no owner. This is what Jenkins' schema (jenkinsci/xunit-plugin,
junit-10.xsd) and the readers of GitLab and GitHub share: a suite for each cell, a test case for
each gate. A failed gate is a failure, an inconclusive one an error.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from kedge_convert.matrix import html, tables
from kedge_convert.matrix.record import BuildReport, CellReport, GateReport
from kedge_runtime.drift.gates import Verdict
from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.files import write_whole
from kedge_runtime.output import json_text
from kedge_runtime.printable import printable

WRONG: dict[Verdict, str] = {"FAIL": "failure", "INCONCLUSIVE": "error"}


def junit(report: BuildReport) -> str:
    """Return the XML document."""
    gates = [gate for cell in report.cells for gate in cell.gates]
    root = Element(
        "testsuites", {"name": printable(f"kedge build {report.config}"), **_counts(gates)}
    )
    for cell in report.cells:
        _add_suite(root, cell)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, "unicode") + "\n"


def _counts(gates: list[GateReport]) -> dict[str, str]:
    verdicts = [gate.verdict for gate in gates]
    wrong = {f"{word}s": str(verdicts.count(verdict)) for verdict, word in WRONG.items()}
    return {"tests": str(len(gates)), **wrong}


def _add_suite(root: Element, cell: CellReport) -> None:
    shown = printable(cell.name)
    head = {"name": shown, **_counts(list(cell.gates)), "skipped": "0", "time": "0"}
    suite = SubElement(root, "testsuite", head)
    for gate in cell.gates:
        name = {"name": gate.name, "classname": f"kedge.{shown}", "time": "0"}
        case = SubElement(suite, "testcase", name)
        if word := WRONG.get(gate.verdict):
            message = printable(gate.message)
            SubElement(case, word, {"message": message, "type": gate.verdict}).text = message
    if cell.notes:
        SubElement(suite, "system-out").text = "\n".join(map(printable, cell.notes))


def as_json(report: BuildReport) -> str:
    """Return one JSON object (docs/report.schema.json)."""
    return json_text(asdict(report)) + "\n"


RENDERERS: dict[str, Callable[[BuildReport], str]] = {
    "report.json": as_json,
    "junit.xml": junit,
    "report.md": tables.markdown,
    "report.html": html.render,
}
"""File name -> its renderer."""

# GitHub's documentation, "Workflow commands": a step's summary is appended to this file.
SUMMARY = "GITHUB_STEP_SUMMARY"


def publish(report: BuildReport, folder: Path) -> list[Path]:
    """Write every report into a folder, and the Markdown to GitHub's summary.

    Returns the files. Raises UsageError when one can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, render in RENDERERS.items():
            # An image's name may not be text.
            write_whole(folder / name, render(report).encode(errors="replace"))
        if summary := os.environ.get(SUMMARY):
            with Path(summary).open("a", encoding="utf-8", errors="replace") as file:
                file.write(tables.markdown(report))
    except OSError as error:
        reason = reason_of(error)
        raise UsageError(f"--reports: {folder}: {reason}; choose another folder") from None
    return [folder / name for name in RENDERERS]
