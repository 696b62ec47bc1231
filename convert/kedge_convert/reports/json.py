"""`report.json`: the records as they are (docs/report.schema.json)."""

import json
from dataclasses import asdict

from kedge_convert.reports.record import Report


def render(report: Report) -> str:
    """Return one JSON object."""
    return json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"
