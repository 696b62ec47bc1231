"""Tell GitHub the result of a build: `python -m kedge_convert.matrix.github REPORTS LOG`.

It prints an error for each gate that did not pass, and writes the outputs of the step.
https://docs.github.com/actions, "Workflow commands": a value's `%`, CR and LF are escaped, a
property's `:` and `,` too. kedge's own output has no commands (`kedge_runtime.output`), so this
module writes to the stream itself.
"""

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from kedge_convert.matrix.record import BuildReport
from kedge_convert.matrix.reports import RENDERERS
from kedge_runtime.printable import message, printable
from kedge_runtime.records import decode

ERROR = "ERROR"  # instead of a verdict: nothing was judged
_VALUE = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _VALUE | str.maketrans({":": "%3A", ",": "%2C"})
OUTPUT = "GITHUB_OUTPUT"


def annotation(title: str, text: str) -> str:
    """Return the workflow command of an error, in one line."""
    title, text = printable(title), message(text)
    return f"::error title={title.translate(_PROPERTY)}::{text.translate(_VALUE)}"


def annotations(report: BuildReport) -> Iterator[str]:
    """Yield an annotation for each gate that didn't pass."""
    for cell in report.cells:
        for gate in cell.gates:
            if gate.verdict != "PASS":
                yield annotation(f"{cell.name}: {gate.name} {gate.verdict}", gate.message)


def outputs(report: BuildReport | None, folder: Path) -> dict[str, str]:
    """Return the outputs of the action; without a report, no file is named."""
    if report is None:
        return {"verdict": ERROR}
    files = {name.replace(".", "-"): str(folder / name) for name in RENDERERS}
    return {"verdict": report.verdict, "artefacts": report.out, **files}


def output_lines(values: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of $GITHUB_OUTPUT; no value can add another output."""
    for name, value in values.items():
        end = f"end-{secrets.token_hex(16)}"
        yield f"{name}<<{end}\n{value}\n{end}\n"


def read_report(folder: Path) -> BuildReport | None:
    """Return the report of a build, None where it ended before. Raises ContractError."""
    path = folder / "report.json"
    if not path.is_file():
        return None
    return decode(BuildReport, json.loads(path.read_text(encoding="utf-8")), path.name)


def last_line(log: Path) -> str:
    """Return the last line of a build's log, which names a usage error."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "the build has no log")


def main(folder: Path, log: Path) -> None:
    """Print the annotations and write the outputs."""
    report = read_report(folder)
    if report is None:
        lines = [annotation("kedge build", last_line(log))]
    else:
        lines = list(annotations(report))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    with Path(os.environ[OUTPUT]).open("a", encoding="utf-8", errors="replace") as file:
        file.writelines(output_lines(outputs(report, folder)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
