"""Check an artefact on this machine: the command `kedge verify`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime.checks.verify import VerifyStage, verify
from kedge_runtime.commands.options import as_json, engine_options, trust_options
from kedge_runtime.commands.paths import PLACE
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.frozen import dataclass
from kedge_runtime.output import echo, echo_json, paint, quiet

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class VerifyOptions:
    """The options of `kedge verify`."""

    artefact: Path
    engine: EngineOptions
    trust: "Trust | None"
    as_json: bool


@click.command("verify")
@click.argument("artefact", type=PLACE)
@engine_options
@trust_options
@as_json
def command(**options: Any) -> int:
    """Check that ARTEFACT gives the same results on this machine as where it was made.

    Its golden images pass through decoding, preprocessing, engine and answer. Each step is compared
    with the results recorded at conversion. The fault lies in the first step that fails; the exit
    code is then 1.

    With --key, the signature is checked first: if it fails, no other part of the file is read.
    """
    return run(VerifyOptions(**options))


def run(options: VerifyOptions) -> int:
    """Verify an artefact and print the stages; return the exit code."""
    with quiet():
        stages = verify(options.artefact, options.engine, options.trust)
    if options.as_json:
        echo_json(_payload(options.artefact, stages))
    else:
        echo(*map(_line, stages), _verdict(options.artefact, stages))
    return 0 if all(stage.passed for stage in stages) else 1


def _payload(artefact: Path, stages: list[VerifyStage]) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    rows = [asdict(stage) for stage in stages]
    serials = [row.pop("serial") for row in rows]
    return {
        "schema": 1,
        "command": "verify",
        "artefact": str(artefact),
        "passed": all(stage.passed for stage in stages),
        "serial": next((serial for serial in serials if serial is not None), None),
        "stages": rows,
    }


def _line(stage: VerifyStage) -> str:
    mark = paint("ok    ", "green") if stage.passed else paint("FAILED", "red")
    return f"{stage.name:<11} {mark}  {stage.detail}"


def _verdict(artefact: Path, stages: list[VerifyStage]) -> str:
    failed = [stage.name for stage in stages if not stage.passed]
    if not failed:
        return paint(f"{artefact.name}: results on this machine are as recorded", "green")
    failure = f"FAILED at stage `{failed[0]}`: do not deploy on this machine"
    return f"{artefact.name}: {paint(failure, 'red', bold=True)}"
