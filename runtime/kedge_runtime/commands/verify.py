"""`kedge verify`."""

from pathlib import Path
from typing import Any

import click

from kedge_runtime.checks.verify import VerifyStage, verify
from kedge_runtime.commands.options import read_trust, trust_options
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.output import echo, echo_json, paint, quiet


@click.command("verify")
@click.argument("artefact", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the engine.")
@click.option("--engine", help="Instead of the format's own engine.")
@click.option("--delegate", help="edgetpu[:usb|pci|N], or a delegate's library.")
@trust_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(artefact: Path, as_json: bool, **options: Any) -> int:
    """Check that ARTEFACT does on this machine what it did where it was made.

    Its golden images go through decoding, preprocessing, engine and answer, and every step is
    compared with what the converter recorded. The first step that fails is where the fault lies.
    Exit code 1 when any does.

    With --key, the signature comes first: without it, nothing else of the file is looked at.
    """
    engine = {name: options[name] for name in ("threads", "delegate", "engine")}
    with quiet():
        stages = verify(artefact, EngineOptions(**engine), read_trust(options))
    if as_json:
        echo_json(_plain(artefact, stages))
    else:
        echo(*map(_line, stages), _verdict(artefact, stages))
    return 0 if all(stage.passed for stage in stages) else 1


def _plain(artefact: Path, stages: list[VerifyStage]) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    return {
        "schema": 1,
        "command": "verify",
        "artefact": str(artefact),
        "passed": all(stage.passed for stage in stages),
        "serial": next((each.serial for each in stages if each.serial is not None), None),
        "stages": [
            {"name": stage.name, "passed": stage.passed, "detail": stage.detail} for stage in stages
        ],
    }


def _line(stage: VerifyStage) -> str:
    mark = paint("ok    ", "green") if stage.passed else paint("FAILED", "red")
    return f"{stage.name:<11} {mark}  {stage.detail}"


def _verdict(artefact: Path, stages: list[VerifyStage]) -> str:
    failed = [stage.name for stage in stages if not stage.passed]
    if not failed:
        return f"{artefact.name} runs here as it did where it was made"
    return f"{artefact.name} must not be trusted here: the fault lies in `{failed[0]}`"
