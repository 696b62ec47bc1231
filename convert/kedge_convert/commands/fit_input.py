"""Find the preprocessing that a model was trained with: the command `kedge fit-input`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_convert.commands.fit_input_table import page, plain
from kedge_convert.commands.float_model_options import FloatModelOptions, model_options, seed
from kedge_convert.commands.options import MODEL
from kedge_convert.fitting.search import InputFit
from kedge_convert.load.request import SourceRequest
from kedge_convert.worker.process import ended_by_signals
from kedge_runtime.commands.options import as_json
from kedge_runtime.drift.gates import EXIT_CODES
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.output import echo_json

if TYPE_CHECKING:
    from kedge_convert.fitting.subject import Subject
    from kedge_convert.worker.progress import Progress
    from kedge_runtime.arrays import Indices
    from kedge_runtime.fitting.candidates import Images

COUNT = 200
LEAST = 10
TRUTH = "auto"


@dataclass(frozen=True)
class FitInputOptions:
    """Hold the command's options as click reads them."""

    model: str
    images: Path
    truth: str
    count: int
    seed: int
    described: FloatModelOptions
    as_json: bool

    @property
    def request(self) -> SourceRequest:
        """The request to load the model."""
        return replace(self.described.of(self.model), folder=str(self.images))


@click.command(name="fit-input")
@click.argument("model", shell_complete=MODEL)
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of images, best with one folder for each class.",
)
@click.option(
    "--truth",
    default=TRUTH,
    show_default=True,
    metavar="HOW|FILE",
    help="Ground truth: auto, none, synset (file names), folders, or a table file,label.",
)
@click.option(
    "--count",
    default=COUNT,
    show_default=True,
    type=click.IntRange(min=LEAST),
    help="Images to use, drawn at random.",
)
@seed
@model_options
@as_json
def command(**values: Any) -> int:
    """Find the preprocessing that MODEL was trained with.

    The model answers the images with every known normalisation, colour order and geometry. The
    last line of the report has the options for `kedge convert`.

    Exit codes: 0 found, 2 usage error, 3 several normalisations are still possible.
    """
    from kedge_convert.worker.progress import Progress

    options = FitInputOptions(**values)
    with ended_by_signals(), Progress(silent=options.as_json) as progress:
        fit = _fit(options, progress)
    if options.as_json:
        echo_json(plain(fit, options.model, str(options.images)))
    else:
        page(fit)
    return 0 if fit.decided else EXIT_CODES["INCONCLUSIVE"]


def _fit(options: FitInputOptions, progress: "Progress") -> "InputFit":
    from kedge_convert.fitting.subject import open_subject
    from kedge_runtime.image.folder import unread_files
    from kedge_runtime.output import quiet

    drawn(options)  # a folder without images is told before the model is loaded
    with progress.stage("load model"), quiet():
        subject = open_subject(options.request)
    for note in subject.labelling.notes:
        progress.say(note)
    if others := unread_files(options.images):
        progress.say(f"{options.images}: {others}")
    return fitted(subject, options, progress)


def fitted(subject: "Subject", options: FitInputOptions, progress: "Progress") -> "InputFit":
    """Return the preprocessing that fits a model best. Raises UsageError for unusable images."""
    from kedge_convert.fitting import search
    from kedge_runtime.fitting import candidates
    from kedge_runtime.output import quiet

    paths = drawn(options)
    with progress.stage("read images", len(paths)) as tick:
        geometries = list(candidates.geometries(subject.height, subject.width))
        images = candidates.load(paths, search.start(subject), geometries, tick)
    _check_images(images, options)
    if images.broken:
        unreadable = counted(len(images.broken), "unreadable image")
        progress.say(f"skipped {unreadable}, for example {images.broken[0].name}")
    classes = _classes(subject, images.paths, options.truth)
    with quiet():
        return search.find(subject, images, classes, progress)


def _check_images(images: "Images", options: FitInputOptions) -> None:
    if len(images.paths) < LEAST:
        raise UsageError(
            f"--images: {options.images}: {counted(len(images.paths), 'readable image')}, at least "
            f"{LEAST} are needed"
        )


def drawn(options: FitInputOptions) -> list[Path]:
    """Return at most `count` images of the folder, in a random order. Raises UsageError."""
    import numpy as np

    from kedge_runtime.image.folder import find_images

    paths = find_images(options.images, "--images")
    order = np.random.default_rng(options.seed).permutation(len(paths))[: options.count]
    return [paths[i] for i in order]


def _classes(subject: "Subject", paths: Sequence[Path], how: str) -> "Indices | None":
    """Return the index of each image's true output, or None without ground truth."""
    import numpy as np

    from kedge_runtime.drift.truth import truth_by

    truth = truth_by(how, paths, subject.labelling.labels)
    offset = subject.output.label_offset
    return None if truth is None else np.array([truth[path] + offset for path in paths], np.int64)
