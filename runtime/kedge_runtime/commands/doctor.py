"""Check this machine: the command `kedge doctor`."""

from dataclasses import asdict

import click

from kedge_runtime.checks.doctor import examine, runnable
from kedge_runtime.commands.findings import lines
from kedge_runtime.output import echo, echo_json
from kedge_runtime.terminal import page_width


@click.command()
# Not that of options.py, which imports libraries that may be broken.
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def doctor(as_json: bool) -> int:
    """Check this machine and suggest fixes.

    Exit code 1 when no engine can run.
    """
    findings = examine()
    runs = runnable(findings)
    if as_json:
        rows = [{"name": name, **asdict(finding)} for name, finding in findings.items()]
        payload = {"schema": 1, "command": "doctor", "runs": runs, "findings": rows}
        echo_json(payload)
    else:
        width = page_width()
        for name, finding in findings.items():
            echo(*lines(name, finding, width))
        echo("", _verdict(runs))
    return 0 if any(runs.values()) else 1


def _verdict(runs: dict[str, list[str]]) -> str:
    if not any(runs.values()):
        return "No model can run here: fix the problems above."
    able = [f".{format} files with {' or '.join(names)}" for format, names in runs.items() if names]
    unable = [f".{format} files" for format, names in runs.items() if not names]
    return f"Runs {', '.join(able)}." + (f" Can't run {', '.join(unable)}." if unable else "")
