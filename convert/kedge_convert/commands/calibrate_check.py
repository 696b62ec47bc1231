"""Check a folder of calibration images: the command `kedge calibrate-check`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_convert.commands.calibrate_check_table import page, plain
from kedge_convert.commands.float_model_options import (
    FloatModelOptions,
    calibrate_count,
    model_options,
    seed,
)
from kedge_convert.commands.options import MODEL
from kedge_convert.sampling import Sampling
from kedge_convert.worker.process import ended_by_signals
from kedge_runtime.artefact.content import FORMATS, read_content
from kedge_runtime.commands.options import as_json, pixel_options
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.output import echo_json

if TYPE_CHECKING:
    from kedge_convert.calibration.check import CalibrationJudge
    from kedge_convert.worker.progress import Progress


@dataclass(frozen=True)
class CalibrateCheckOptions:
    """The options of `kedge calibrate-check`, as the command line gives them."""

    folder: Path
    model: str | None
    calibrate_count: int
    seed: int
    described: FloatModelOptions
    pixels: InputOptions
    as_json: bool

    def __post_init__(self) -> None:
        """Refuse options that describe a model where there is none."""
        if self.model is None:
            self._refuse("needs --model, whose input it describes; give it, or leave this out")

    def _refuse(self, reason: str) -> None:
        given = self.described.given()
        if self.pixels.given:
            given.append(self.pixels.options())
        if given:
            raise UsageError(f"{given[0]}: {reason}")

    def judge(self, progress: "Progress") -> "CalibrationJudge | None":
        """Load the model; None without one. Raises UsageError, ArtefactError."""
        from kedge_convert.calibration.check import ArtefactJudge, FloatJudge

        if self.model is None:
            return None
        if Path(self.model).suffix.lower().lstrip(".") in FORMATS:
            content = read_content(Path(self.model))
            if content.sealed:
                self._refuse("an artefact states its input itself; leave this out")
                return ArtefactJudge.load(content)
        request = replace(
            self.described.of(self.model), pixels=self.pixels, folder=str(self.folder)
        )
        return FloatJudge.load(request, progress)


@click.command(name="calibrate-check")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--model",
    shell_complete=MODEL,
    help="MODEL of kedge convert, or an artefact: checks answers, distribution and ranges, too.",
)
@calibrate_count
@seed
@model_options
@pixel_options
@as_json
def command(**values: Any) -> int:
    """Check the calibration images in DIR before you convert with them.

    Finds unreadable, blank, repeated and nearly equal images, and missing classes. With --model
    also images unlike those that the model was trained for, and whether there are enough: whether
    the ranges of its activations are stable.

    Exit codes: 0 no problem, 1 a problem that can spoil a conversion, 2 usage error. Notes don't
    change the exit code.
    """
    from kedge_convert.calibration.check import check
    from kedge_convert.worker.progress import Progress

    options = CalibrateCheckOptions(**values)
    with ended_by_signals(), Progress(silent=options.as_json) as progress:
        sampling = Sampling(options.calibrate_count, seed=options.seed)
        report = check(options.folder, sampling, options.judge(progress), progress)
    if options.as_json:
        echo_json(plain(report, options.model))
    else:
        page(report)
    return int(report.has_problem)
