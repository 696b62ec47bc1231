"""`kedge convert`."""

import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_convert.commands.float_model_options import (
    FloatModelOptions,
    calibrate_count,
    model_options,
    seed,
)
from kedge_convert.commands.options import MODEL, DeviceOptions, device_options
from kedge_convert.images import SYNTHETIC
from kedge_convert.load.request import SourceRequest
from kedge_convert.quantise.effort import DEFAULT, EFFORTS
from kedge_convert.rewrite.lowering import REWRITES
from kedge_convert.sampling import Sampling
from kedge_convert.targets import TARGETS
from kedge_convert.worker import process
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.commands.arguments import DROP, SHARE, completing_list
from kedge_runtime.commands.options import as_json, pixel_options
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.output import echo_json

if TYPE_CHECKING:
    from kedge_convert.job import Job, Outcome


@dataclass(frozen=True)
class ConvertOptions:
    """The options of `kedge convert`, as the command line gives them."""

    model: str
    targets: str | None
    out: Path
    calibrate: Path | None
    calibrate_count: int
    check_count: int
    confidence_count: int
    seed: int
    described: FloatModelOptions
    pixels: InputOptions
    force_input: bool
    output: str | None
    signature: str | None
    effort: str
    dynamic_batch: bool
    per_tensor: bool
    rewrites: tuple[str, ...]
    device: DeviceOptions
    min_agreement: float | None
    max_drop: float | None
    max_logit_error: float | None
    memory_limit: str
    time_limit: str
    as_json: bool

    def __post_init__(self) -> None:
        """Refuse limits that synthetic images can't decide."""
        limits = {"--min-agreement": self.min_agreement, "--max-drop": self.max_drop}
        for option, value in limits.items():
            if self.synthetic and value is not None:
                raise UsageError(f"{option}: synthetic images can't decide it; give a folder")

    @property
    def synthetic(self) -> bool:
        """Whether images are made from the model. A folder of that name is a folder."""
        return self.calibrate == Path(SYNTHETIC) and not self.calibrate.is_dir()

    @property
    def folder(self) -> Path | None:
        """The user's folder of images."""
        return None if self.synthetic else self.calibrate


@click.command()
@click.argument("model", shell_complete=MODEL)
@click.option(
    "--to",
    "targets",
    multiple=True,
    callback=lambda _, __, values: _joined(values),
    show_default="all, or the device's",
    shell_complete=completing_list(lambda: ["all", *map(str, TARGETS)]),
    help=f"Targets: all, or some of {', '.join(map(str, TARGETS))}. May be repeated.",
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
    help="Folder of images to draw calibration and validation images from, or synthetic: made from "
    "the model's batch norms.",
)
@calibrate_count
@click.option(
    "--check-count",
    default=Sampling.check,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of validation images.",
)
@click.option(
    "--confidence-count",
    default=Sampling.confidence,
    show_default=True,
    type=click.IntRange(min=0),
    help="Most labelled images, of those left over, to fit the confidence to; 0 for none, else at "
    "least 100.",
)
@seed
@model_options
@pixel_options
@click.option(
    "--force-input",
    is_flag=True,
    help="Convert even if another preprocessing fits the model better, or if the model normalises "
    "a second time.",
)
@click.option("--output", help="Name or index of the output, for a MODEL with several.")
@click.option("--signature", help="Name of the signature, for a SavedModel with several.")
@click.option(
    "--effort",
    type=click.Choice(list(EFFORTS)),
    default=DEFAULT.name,
    show_default=True,
    help="Work for integer targets: fast keeps the stock weights, default prepares them, too, high "
    "also copies channels.",
)
@click.option("--dynamic-batch", is_flag=True, help="Give ONNX files an open batch size.")
@click.option(
    "--per-tensor",
    is_flag=True,
    help="Give int8 weights one scale for a whole layer, for compilers that know no other.",
)
@click.option(
    "--rewrite",
    "rewrites",
    multiple=True,
    type=click.Choice(list(REWRITES)),
    help="Replace operators that the accelerator does not support. May be repeated.",
)
@device_options
@click.option(
    "--min-agreement",
    type=SHARE,
    help="Minimum agreement with the float model (top-1; multi-label: equal label sets).",
)
@click.option(
    "--max-drop",
    type=DROP,
    help="Maximum drop in accuracy, as 0.5pp. With this or --min-agreement, int8 targets keep "
    "layers in float, or become float16, until the limit holds.",
)
@click.option(
    "--max-logit-error",
    type=click.FloatRange(0),
    help="Maximum logit error, as a share of the largest logit.",
)
@click.option(
    "--memory-limit",
    default=process.MEMORY,
    show_default=True,
    help="Memory of the conversion: 8G, a share of the free memory, none.",
)
@click.option(
    "--time-limit",
    default=process.TIME,
    show_default=True,
    help="Time for one target: 90s, 30m, 2h, none.",
)
@as_json
def convert(**values: Any) -> int:
    """Convert MODEL to verified artefacts.

    MODEL is a card's name (`kedge models`), `demo`, a .keras or legacy .h5 file, a SavedModel
    folder, a frozen .pb graph, or a float .tflite or .onnx file. kedge runs each artefact on
    validation images and compares it with the float model. An artefact that misses a limit is kept
    as *.rejected, and the exit code is 1.
    """
    from kedge_convert import job_checks
    from kedge_convert.commands import convert_table
    from kedge_convert.worker import supervisor
    from kedge_convert.worker.progress import Progress

    options = ConvertOptions(**values)
    bounds = process.ProcessLimits(options.memory_limit, options.time_limit).bounds()
    job = _job(options)
    job_checks.check(job)
    with process.ended_by_signals(), Progress(silent=options.as_json) as progress:
        outcomes = supervisor.convert(job, progress, bounds)
    if options.as_json:
        echo_json(_plain(job, outcomes))
    else:
        convert_table.table(outcomes, drop=options.max_drop is not None)
    return 0 if all(outcome.verdict.passed for outcome in outcomes) else 1


def _joined(lists: tuple[str, ...]) -> str | None:
    """Return the lists of targets as one, None for none: of two options click takes the last."""
    return ",".join(lists) if lists else None


def _job(options: ConvertOptions) -> "Job":
    from kedge_convert.job import Job
    from kedge_convert.targets import targets_for
    from kedge_convert.verdict import UserLimits

    device = options.device.profile()
    return Job(
        request=_request(options),
        targets=targets_for(device, options.targets),
        out=options.out,
        calibrate=options.folder,
        synthetic=options.synthetic,
        sampling=Sampling(
            options.calibrate_count, options.check_count, options.seed, options.confidence_count
        ),
        effort=EFFORTS[options.effort],
        dynamic_batch=options.dynamic_batch,
        rewrites=options.rewrites,
        per_tensor=options.per_tensor,
        limits=UserLimits(options.min_agreement, options.max_logit_error, options.max_drop),
        device=device,
        gates=options.device.gates(),
    )


def _request(options: ConvertOptions) -> SourceRequest:
    return replace(
        options.described.of(options.model),
        pixels=options.pixels,
        folder=str(options.folder) if options.folder else None,
        output=options.output,
        signature=options.signature,
        force_input=options.force_input,
        command=shlex.join(["kedge", *sys.argv[1:]]),
    )


def _plain(job: "Job", outcomes: "list[Outcome]") -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    artefacts = [asdict(_report(outcome)) for outcome in outcomes]
    return {"schema": 1, "command": "convert", "model": job.request.model, "artefacts": artefacts}


@dataclass(frozen=True)
class TargetReport:
    """One target in the JSON; None for what only a file has, after a failed conversion."""

    target: str
    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    path: str | None = None
    bytes: int | None = None
    ratio: float | None = None
    precision: str | None = None
    ranges: str | None = None
    float_layers: tuple[str, ...] | None = None
    copied_layers: tuple[str, ...] | None = None
    method: str | None = None
    head: Kind | None = None
    device: dict[str, Any] | None = None
    compiled: str | None = None
    folder: str | None = None
    parity: dict[str, Any] | None = None
    confidence: dict[str, Any] | None = None


def _report(outcome: "Outcome") -> TargetReport:
    from kedge_convert.device.report import plain_fit

    verdict, checked = outcome.verdict, outcome.checked
    report = TargetReport(str(outcome.target), verdict.passed, verdict.reasons, outcome.notes)
    if checked is None:
        return report
    return replace(
        report,
        path=str(checked.path),
        bytes=checked.size,
        ratio=checked.ratio,
        precision=checked.recipe.precision,
        ranges=checked.recipe.ranges,
        float_layers=checked.recipe.float_layers,
        copied_layers=checked.recipe.copied_layers,
        method=checked.recipe.method,
        head=checked.head,
        device=plain_fit(checked.fit) if checked.fit else None,
        compiled=str(checked.compiled) if checked.compiled else None,
        folder=str(checked.folder) if checked.folder else None,
        parity=checked.parity.plain(),
        confidence=checked.confidence,
    )
