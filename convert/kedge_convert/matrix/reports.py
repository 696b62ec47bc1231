"""Reports of a build: twins, one module a file, with one verb, `render(report) -> str`."""

import os
from collections.abc import Callable
from pathlib import Path

from kedge_convert.matrix import html, json, junit, markdown
from kedge_convert.matrix.record import BuildReport
from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.files import write_whole

RENDERERS: dict[str, Callable[[BuildReport], str]] = {
    "report.json": json.render,
    "junit.xml": junit.render,
    "report.md": markdown.render,
    "report.html": html.render,
}
"""File name -> what writes it."""

# GitHub's documentation, "Workflow commands": a step's summary is what it appends to this file.
SUMMARY = "GITHUB_STEP_SUMMARY"


def publish(report: BuildReport, folder: Path) -> list[Path]:
    """Write every report into a folder, and the Markdown where GitHub shows it.

    Returns the files. Raises UsageError when one can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, render in RENDERERS.items():
            # A picture's name may be no text.
            write_whole(folder / name, render(report).encode(errors="replace"))
        if summary := os.environ.get(SUMMARY):
            with Path(summary).open("a", encoding="utf-8", errors="replace") as file:
                file.write(markdown.render(report))
    except OSError as error:
        reason = reason_of(error)
        raise UsageError(f"--reports: {folder}: {reason}; choose another folder") from None
    return [folder / name for name in RENDERERS]
