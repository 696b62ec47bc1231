"""`report.json`: the records as they are (docs/report.schema.json)."""

from dataclasses import asdict

from kedge_convert.matrix.record import BuildReport
from kedge_runtime.output import json_text


def render(report: BuildReport) -> str:
    """Return one JSON object."""
    return json_text(asdict(report)) + "\n"
