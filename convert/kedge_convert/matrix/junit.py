"""Write `junit.xml` for CI systems: a suite for each cell, a test case for each gate.

The format has no owner. This is what Jenkins' schema (jenkinsci/xunit-plugin, junit-10.xsd) and the
readers of GitLab and GitHub share. A failed gate is a failure, an inconclusive one an error.
"""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from kedge_convert.matrix.record import BuildReport, CellReport, GateReport
from kedge_runtime.drift.gates import Verdict
from kedge_runtime.output import printable

WRONG: dict[Verdict, str] = {"FAIL": "failure", "INCONCLUSIVE": "error"}


def render(report: BuildReport) -> str:
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
