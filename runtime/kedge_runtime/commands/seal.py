"""`kedge seal`."""

import shlex
from pathlib import Path
from typing import Any

import click

from kedge_runtime.artefact.sealing import SealRequest, SealResult, seal_file
from kedge_runtime.commands.options import FILE, SHARE, foreign_options, foreign_words
from kedge_runtime.output import echo, echo_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@foreign_options
@click.option("--threshold", type=SHARE, help="For sigmoid outputs [default: .5].")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of images for the golden set [default: rendered ones]; where folders or names "
    "tell their classes, for a check of the preprocessing, too.",
)
@click.option(
    "--force-input",
    is_flag=True,
    help="Seal even if another known preprocessing fits labelled images better.",
)
@click.option("--out", type=FILE, metavar="FILE", help="[default: NAME.sealed.tflite beside FILE]")
@click.option("--in-place", is_flag=True, help="Replace FILE itself.")
@click.option("--reseal", is_flag=True, help="Replace the seal of a sealed file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(**options: Any) -> int:
    """Write a contract, labels and a golden set into a model that kedge didn't make.

    FILE ends in .tflite or .onnx, or is Teachable Machine's zip. Afterwards classify, verify,
    drift, bench and inspect take the sealed file as one of kedge's own. What FILE tells of itself
    is taken; what is missing is asked for in one message.
    """
    sealed = seal_file(_order(options))
    if options["as_json"]:
        echo_json(_plain(options["file"], sealed))
        return 0
    echo(*sealed.lines, f"{sealed.path}: sealed, {sealed.digest[:19]}...")
    return 0


def _order(options: dict[str, Any]) -> SealRequest:
    places = ("file", "images", "out", "in_place", "reseal", "force_input")
    return SealRequest(
        options=foreign_words(options, options["threshold"]),
        command=_command(options),
        **{name: options[name] for name in places},
    )


def _command(options: dict[str, Any]) -> str:
    """Return the call without its facts."""
    words = ["kedge", "seal", str(options["file"])]
    for name in ("images", "out"):
        if options[name]:
            words += [f"--{name}", str(options[name])]
    words += [
        f"--{name.replace('_', '-')}"
        for name in ("force_input", "in_place", "reseal")
        if options[name]
    ]
    return shlex.join(words)


def _plain(file: Path, sealed: SealResult) -> dict[str, Any]:
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
        "kind": contract.output.kind,
        "labels": len(contract.labels),
        "notes": list(sealed.lines),
    }
