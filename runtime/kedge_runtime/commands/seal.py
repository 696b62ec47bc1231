"""Seal another tool's model file: the command `kedge seal`."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kedge_runtime.artefact.model_options import ModelOptions
from kedge_runtime.artefact.sealing import SealRequest, SealResult, seal_file
from kedge_runtime.commands.arguments import SHARE, say_unread
from kedge_runtime.commands.options import as_json, foreign_options
from kedge_runtime.commands.paths import FILE, PLACE
from kedge_runtime.frozen import dataclass
from kedge_runtime.output import echo, echo_json


@dataclass(frozen=True)
class SealOptions:
    """The options of `kedge seal`."""

    file: Path
    words: ModelOptions
    threshold: float | None
    images: Path | None
    force_input: bool
    out: Path | None
    in_place: bool
    reseal: bool
    as_json: bool

    @property
    def command(self) -> str:
        """The call without the facts about the model."""
        places = {"--images": self.images, "--out": self.out}
        flags = {
            "--force-input": self.force_input,
            "--in-place": self.in_place,
            "--reseal": self.reseal,
        }
        words = ["kedge", "seal", str(self.file)]
        for option, path in places.items():
            words += [option, str(path)] if path else []
        return shlex.join([*words, *(flag for flag, is_set in flags.items() if is_set)])


@click.command()
@click.argument("file", type=PLACE, metavar="FILE")
@foreign_options
@click.option("--threshold", type=SHARE, help="Threshold of sigmoid outputs [default: .5].")
@click.option(
    "--images",
    type=PLACE,
    metavar="DIR",
    help="Images for the golden set [default: rendered ones]. Where folders or names give their "
    "classes, the preprocessing is checked with them too.",
)
@click.option(
    "--force-input",
    is_flag=True,
    help="Seal even if another known preprocessing fits the labelled images better.",
)
@click.option("--out", type=FILE, metavar="FILE", help="[default: NAME.sealed.tflite beside FILE]")
@click.option("--in-place", is_flag=True, help="Replace FILE itself.")
@click.option("--reseal", is_flag=True, help="Replace the seal of a sealed file.")
@as_json
def command(**options: Any) -> int:
    """Write a contract, labels and a golden set into another tool's model file.

    FILE ends in .tflite or .onnx, or is Teachable Machine's zip. Afterwards classify, verify,
    drift, bench and inspect accept the sealed file like an artefact of `kedge convert`. Facts in
    FILE are used; one message lists all that are missing.
    """
    return run(SealOptions(**options))


def run(options: SealOptions) -> int:
    """Seal a file and print what was written; return the exit code."""
    sealed = seal_file(
        SealRequest(
            file=options.file,
            options=replace(options.words, threshold=options.threshold),
            command=options.command,
            images=options.images,
            force_input=options.force_input,
            out=options.out,
            in_place=options.in_place,
            reseal=options.reseal,
        )
    )
    if options.images:
        say_unread(options.images)
    if options.as_json:
        echo_json(_payload(options.file, sealed))
    else:
        echo(*sealed.lines, f"{sealed.path}: sealed, {sealed.digest[:19]}...")
    return 0


def _payload(file: Path, sealed: SealResult) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    contract = sealed.derived.contract
    return {
        "schema": 1,
        "command": "seal",
        "file": str(file),
        "artefact": str(sealed.path),
        "digest": sealed.digest,
        "bytes": sealed.size,
        "pipeline": contract.input.pipeline,
        "head": contract.output.kind,
        "labels": len(contract.labels),
        "notes": list(sealed.lines),
    }
