"""`report.json`: the records as they are (docs/report.schema.json)."""

from dataclasses import asdict

from kedge_convert.reports.record import Report
from kedge_runtime.output import json_text


def render(report: Report) -> str:
    """Return one JSON object."""
    return json_text(asdict(report)) + "\n"
