"""`kedge doctor`."""

import shutil
from dataclasses import asdict
from textwrap import wrap

import click

from kedge_runtime.checks.doctor import examine, runnable
from kedge_runtime.checks.hardware import Finding, State
from kedge_runtime.output import echo, echo_json, paint
from kedge_runtime.printable import printable

COLOURS: dict[State, str] = {"ok": "green", "note": "yellow", "problem": "red"}
STATE, NAME = 9, 13  # widths of the columns
WIDEST = 100


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def doctor(as_json: bool) -> int:
    """Tell what this machine can run, and the fix for what it can't.

    Exit code 1 when no engine can run.
    """
    findings = examine()
    runs = runnable(findings)
    if as_json:
        rows = [{"name": name, **asdict(finding)} for name, finding in findings.items()]
        answer = {"schema": 1, "command": "doctor", "runs": runs, "findings": rows}
        echo_json(answer)
    else:
        width = min(shutil.get_terminal_size().columns, WIDEST)
        for name, finding in findings.items():
            echo(*lines(name, finding, width))
        echo("", _verdict(runs))
    return 0 if any(runs.values()) else 1


def lines(name: str, finding: Finding, width: int) -> list[str]:
    """Return a finding as rows of a table `width` columns wide, its fix below it."""
    room, indent = max(width - STATE - NAME, 20), " " * (STATE + NAME)
    first, *others = _wrapped(finding.detail, room) or [""]
    state = paint(f"{finding.state:<{STATE}}", COLOURS[finding.state])
    fix = _wrapped(f"-> {finding.fix}", room, hanging="   ") if finding.fix else []
    return [f"{state}{name:<{NAME}}{first}", *(indent + line for line in [*others, *fix])]


def _wrapped(text: str, room: int, hanging: str = "") -> list[str]:
    return wrap(
        printable(text),
        room,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict(runs: dict[str, list[str]]) -> str:
    if not any(runs.values()):
        return "No model can run here until the problems above are mended."
    able = [f".{form} files with {' or '.join(names)}" for form, names in runs.items() if names]
    unable = [f".{form} files" for form, names in runs.items() if not names]
    return f"Runs {', '.join(able)}." + (f" Can't run {', '.join(unable)}." if unable else "")
