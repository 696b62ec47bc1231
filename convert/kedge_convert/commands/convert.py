"""`kedge convert`."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from kedge_convert.commands.options import device_options
from kedge_convert.images import Sampling
from kedge_convert.load.request import SourceRequest
from kedge_convert.rewrite.on_request import REWRITES
from kedge_convert.targets import TARGETS
from kedge_convert.worker import process
from kedge_runtime.artefact.contract import Kind
from kedge_runtime.commands.options import DROP, SHARE, pixel_options, pixel_words
from kedge_runtime.output import echo_json

if TYPE_CHECKING:
    from kedge_convert.job import Job, Outcome


@click.command()
@click.argument("model")
@click.option(
    "--to",
    "targets",
    show_default="all, or what --device wants",
    help=f"all, or some of {', '.join(map(str, TARGETS))}.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out"),
    show_default=True,
    help="Folder of the artefacts.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="Folder of pictures; a part of them is kept for the check.",
)
@click.option(
    "--calibrate-count",
    default=Sampling.calibration,
    show_default=True,
    type=click.IntRange(min=1),
    help="Pictures to calibrate with.",
)
@click.option(
    "--check-count",
    default=Sampling.check,
    show_default=True,
    type=click.IntRange(min=1),
    help="Pictures to check with.",
)
@click.option(
    "--seed", default=Sampling.seed, show_default=True, help="Seed of the draw of pictures."
)
@click.option("--card", help="The application MODEL was built from; `kedge models` lists them.")
@click.option(
    "--weights",
    default=SourceRequest.weights,
    show_default=True,
    help="For a card: imagenet (downloaded) or a weights file.",
)
@pixel_options
@click.option(
    "--force-input",
    is_flag=True,
    help="Convert even if another known preprocessing fits the model better.",
)
@click.option(
    "--head",
    type=click.Choice(get_args(Kind)),
    help="What MODEL's numbers are; its last layer tells, mostly.",
)
@click.option("--size", help="224 or 160x192 (height x width), for a MODEL that takes any.")
@click.option("--output", help="Name or index of the output, for a MODEL with several.")
@click.option("--signature", help="Name of the signature, for a SavedModel with several.")
@click.option("--labels", help="FILE with a class a line, or imagenet; instead of the card's.")
@click.option(
    "--prepare/--no-prepare",
    default=True,
    show_default=True,
    help="Adjust the weights of integer targets first.",
)
@click.option(
    "--dynamic-batch", is_flag=True, help="ONNX that takes any number of pictures at once."
)
@click.option(
    "--rewrite",
    "rewrites",
    multiple=True,
    type=click.Choice(list(REWRITES)),
    help="Write operators that an accelerator lacks as others.",
)
@device_options
@click.option(
    "--min-agreement",
    type=SHARE,
    help="Least share of pictures with the original's best class, or its whole set of labels.",
)
@click.option(
    "--max-drop",
    type=DROP,
    help="Most accuracy lost, as 0.5pp. With this or --min-agreement, int8 targets keep layers in "
    "float, or become float16, until it holds.",
)
@click.option(
    "--max-logit-error",
    type=click.FloatRange(0),
    help="Largest logit error, as a share of the largest logit.",
)
@click.option(
    "--memory-limit",
    default=process.MEMORY,
    show_default=True,
    help="Memory of the conversion: 8G, a share of what is free, none.",
)
@click.option(
    "--time-limit",
    default=process.TIME,
    show_default=True,
    help="Time for one target: 90s, 30m, 2h, none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def convert(**options: Any) -> int:
    """Convert MODEL to verified artefacts.

    MODEL is a card's name (`kedge models`), `demo`, a .keras or legacy .h5 file, a SavedModel
    folder, or a frozen .pb graph. Every artefact is run on pictures that were not used for
    calibration and compared with the float original before it gets its name; one that misses its
    limits is left as *.rejected, and the exit code is 1.
    """
    from kedge_convert import asking
    from kedge_convert.commands import table
    from kedge_convert.worker import supervisor
    from kedge_convert.worker.progress import Progress

    job, limits = _job(options), _bounds(options)
    asking.check(job)
    with ended_by_signals(), Progress(silent=options["as_json"]) as progress:
        outcomes = supervisor.convert(job, progress, limits)
    if options["as_json"]:
        echo_json(_plain(job, outcomes))
    else:
        table.table(outcomes, drop=job.limits.drop is not None)
    return 0 if all(outcome.verdict.passed for outcome in outcomes) else 1


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Clean up, as after Ctrl-C, when the terminal is closed or `timeout` ends the command."""
    before = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bounds(options: dict[str, Any]) -> process.Bounds:
    memory, seconds = options["memory_limit"], options["time_limit"]
    return process.Bounds(process.read_memory(memory), process.read_time(seconds))


def _job(options: dict[str, Any]) -> "Job":
    from kedge_convert.device.choices import targets_for
    from kedge_convert.device.fit import DeviceGates
    from kedge_convert.job import Job
    from kedge_convert.verdict import UserLimits
    from kedge_models.devices import device

    wanted = None if options["device"] is None else device(options["device"])
    return Job(
        request=_request(options),
        targets=targets_for(wanted, options["targets"]),
        out=options["out"],
        calibrate=options["calibrate"],
        sampling=Sampling(options["calibrate_count"], options["check_count"], options["seed"]),
        prepare=options["prepare"],
        dynamic_batch=options["dynamic_batch"],
        rewrites=options["rewrites"],
        limits=UserLimits(
            options["min_agreement"], options["max_logit_error"], options["max_drop"]
        ),
        device=wanted,
        gates=DeviceGates(options["min_mapped"], options["max_sram"]),
        force_input=options["force_input"],
    )


def _request(options: dict[str, Any]) -> SourceRequest:
    names = {field.name for field in fields(SourceRequest)} & options.keys()
    return SourceRequest(
        **{name: options[name] for name in names},
        pixels=pixel_words(options),
        folder=str(options["calibrate"]) if options["calibrate"] else None,
        command=shlex.join(["kedge", *sys.argv[1:]]),
    )


def _plain(job: "Job", outcomes: "list[Outcome]") -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    artefacts = [_artefact(outcome) for outcome in outcomes]
    return {"schema": 1, "command": "convert", "model": job.request.model, "artefacts": artefacts}


def _artefact(outcome: "Outcome") -> dict[str, Any]:
    from kedge_convert.commands.inspect import plain_fit

    checked = outcome.checked
    return {
        "target": str(outcome.target),
        "path": str(checked.path) if checked else None,
        "bytes": checked.size if checked else None,
        "ratio": checked.ratio if checked else None,
        "precision": checked.recipe.precision if checked else None,
        "ranges": checked.recipe.ranges if checked else None,
        "float_layers": list(checked.recipe.float_layers) if checked else None,
        "method": checked.recipe.method if checked else None,
        "head": checked.head if checked else None,
        "device": plain_fit(checked.fit) if checked and checked.fit else None,
        "compiled": str(checked.compiled) if checked and checked.compiled else None,
        "passed": outcome.verdict.passed,
        "reasons": list(outcome.verdict.reasons),
        "notes": list(outcome.notes),
        "parity": checked.parity.plain() if checked else None,
    }
