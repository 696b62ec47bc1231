"""`kedge verify`."""

from dataclasses import asdict
from pathlib import Path

import click

from kedge_runtime.engines import EngineOptions
from kedge_runtime.output import echo, echo_json, paint
from kedge_runtime.quiet import quiet
from kedge_runtime.verify import Stage, verify


@click.command("verify")
@click.argument("artefact", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the engine.")
@click.option("--engine", help="Instead of the format's own engine.")
@click.option("--delegate", help="edgetpu[:usb|pci|N], or a delegate's library.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(
    artefact: Path, threads: int | None, engine: str | None, delegate: str | None, as_json: bool
) -> int:
    """Check that ARTEFACT does on this machine what it did where it was made.

    Its golden pictures go through decoding, preprocessing, engine and answer, and every step is
    compared with what the converter recorded. The first step that fails is where the fault lies.
    Exit code 1 when any does.
    """
    with quiet():
        stages = verify(artefact, EngineOptions(threads=threads, engine=engine, delegate=delegate))
    passed = all(stage.passed for stage in stages)
    if as_json:
        body = {"artefact": str(artefact), "passed": passed, "stages": list(map(asdict, stages))}
        echo_json({"schema": 1, "command": "verify", **body})
    else:
        echo(*map(_line, stages), _verdict(artefact, stages))
    return 0 if passed else 1


def _line(stage: Stage) -> str:
    mark = paint("ok    ", "green") if stage.passed else paint("FAILED", "red")
    return f"{stage.name:<11} {mark}  {stage.detail}"


def _verdict(artefact: Path, stages: list[Stage]) -> str:
    failed = [stage.name for stage in stages if not stage.passed]
    if not failed:
        return f"{artefact.name} runs here as it did where it was made"
    return f"{artefact.name} must not be trusted here: the fault lies in `{failed[0]}`"
