"""Publish a build's reports: one function `render(report) -> str` for each file."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from kedge_convert.matrix import html, junit, markdown
from kedge_convert.matrix.record import BuildReport
from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.files import write_whole
from kedge_runtime.output import json_text


def as_json(report: BuildReport) -> str:
    """Return one JSON object (docs/report.schema.json)."""
    return json_text(asdict(report)) + "\n"


RENDERERS: dict[str, Callable[[BuildReport], str]] = {
    "report.json": as_json,
    "junit.xml": junit.render,
    "report.md": markdown.render,
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
                file.write(markdown.render(report))
    except OSError as error:
        reason = reason_of(error)
        raise UsageError(f"--reports: {folder}: {reason}; choose another folder") from None
    return [folder / name for name in RENDERERS]
