"""Classify images: the command `kedge classify`."""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from kedge_runtime.classify.arguments import CallOptions
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.marks import AUTO, Marker, summaries
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Result
from kedge_runtime.commands.answers import ENSEMBLE, JsonPrinter, printer_for
from kedge_runtime.commands.arguments import Batch, completing, split
from kedge_runtime.commands.csv_table import CsvTable
from kedge_runtime.commands.opening import (
    ModelRequest,
    answer_options,
    model_request,
    open_all,
    opening_options,
    predictors_of,
)
from kedge_runtime.commands.options import as_json
from kedge_runtime.commands.paths import FILE
from kedge_runtime.drift.truth import SCHEMES
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.files import check_place, write_whole
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.ahead import answered
from kedge_runtime.output import echo, note, only_python_stderr

if TYPE_CHECKING:
    from kedge_runtime.classify.contact_sheet import ContactSheet


STDOUT = Path("-")


@dataclass(frozen=True)
class ClassifyOptions:
    """The options of `kedge classify`."""

    arguments: tuple[str, ...]
    top: int
    model: ModelRequest
    sheet: Path | None
    csv: Path | None
    truth: str
    save_features: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        """Refuse unwritable paths, and options that exclude each other."""
        files = {"--sheet": (self.sheet, ".png"), "--save-features": (self.save_features, ".npz")}
        for option, (path, suffix) in files.items():
            if path is not None:
                check_place(option, path, suffix)
        if self.csv and self.save_features:
            raise UsageError("--csv: shows results, not features; omit it or --save-features")
        if self.csv and self.csv != STDOUT:
            check_place("--csv", self.csv, ".csv")
        elif self.csv and self.as_json:
            raise UsageError("--csv - and --json: both print on stdout; give --csv a file")
        if self.sheet and self.save_features:
            raise UsageError("--sheet: shows results, not features; omit it or --save-features")
        if self.model.second and self.save_features:
            raise UsageError("--second: is for answers, not features; omit it or --save-features")


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="ARTEFACT... IMAGE...")
@click.option(
    "--top",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of classes per image.",
)
@answer_options
@click.option("--sheet", type=FILE, metavar="PNG", help="Draw a contact sheet with the results.")
@click.option(
    "--csv",
    type=FILE,
    metavar="CSV",
    help="Write a table, a row for each image; - prints it instead of the list.",
)
@click.option(
    "--truth",
    default=AUTO,
    show_default=True,
    metavar="HOW|FILE",
    shell_complete=completing(lambda: [AUTO, "none", *SCHEMES], files=True),
    help="Ground truth: auto (folders named like classes), none, synset (file names), folders, "
    "or a table file,label.",
)
@click.option(
    "--save-features", type=FILE, metavar="NPZ", help="Save a feature model's embeddings."
)
@opening_options
@as_json
def classify(**options: Any) -> int:
    """Classify images.

    ARTEFACT ends in .tflite or .onnx. IMAGE is a file, a folder that is searched, a 'pattern/*.jpg'
    in quotes, or - for names on stdin. Several artefacts are compared side by side.

    A model file without a seal, or Teachable Machine's zip, needs --labels, --preprocess,
    --normalisation and --head, as `kedge seal` takes them.
    """
    return run(ClassifyOptions(model=model_request(options), **options))


def run(options: ClassifyOptions) -> int:
    """Classify images, or save features; return the exit code."""
    artefacts, images = split(options.arguments, zips=True)
    classifiers = open_all(artefacts, options.model.for_images(images))
    if options.save_features:
        return save_features(classifiers, images, options.save_features, as_json=options.as_json)
    predictors = predictors_of(classifiers, options.model)
    names = [str(classifier.artefact.path) for classifier in classifiers]
    names += [str(options.model.second)] if options.model.second else []
    try:
        return classify_images(predictors, names, images, options)
    finally:
        for line in (line for each in predictors for line in each.summary()):
            note(line)


def classify_images(
    predictors: Sequence[Predictor],
    artefacts: Sequence[str],
    images: Iterable[Path],
    options: ClassifyOptions,
) -> int:
    """Classify each image with each predictor, and print the results; return the exit code."""
    titles = [ENSEMBLE] if options.model.ensemble else list(artefacts)[: len(predictors)]
    markers, images = _markers(predictors, images, options)
    table = CsvTable(titles, options.top) if options.csv else None
    printed = table if options.csv == STDOUT else None
    printer = printer_for(titles, artefacts, options.top, as_json=options.as_json, table=printed)
    sheet = _contact_sheet(titles) if options.sheet else None
    if options.sheet or options.csv:
        _finish_without_reader()
    batch, call = Batch(), CallOptions(options.top, options.model.rule)
    # OpenCV prints about damaged images.
    with only_python_stderr(), answered(partial(_prepared, predictors, call), images) as answers:
        for image, answer in answers:
            with batch.skipping(image):
                results = answer()
                pairs = zip(markers, results, strict=True)
                marks = [marker.mark(image, result) for marker, result in pairs]
                if sheet:
                    sheet.add(image, results, marks)
                if table:
                    table.add(image, results, marks)
                printer.add(image, results, marks)
    printer.close(batch.failed, summaries(markers))
    _write(options, sheet, table)
    return batch.close()


def _prepared(
    predictors: Sequence[Predictor], options: CallOptions, image: Path
) -> Callable[[], list[Result]]:
    """Decode and preprocess an image for each predictor; return what gives their results."""
    prepared = [predictor.prepared_result(image, options) for predictor in predictors]
    return lambda: [result() for result in prepared]


def _contact_sheet(titles: Sequence[str]) -> "ContactSheet":
    from kedge_runtime.classify.contact_sheet import ContactSheet  # few calls draw one

    return ContactSheet(titles)


def _markers(
    predictors: Sequence[Predictor], images: Iterable[Path], options: ClassifyOptions
) -> tuple[list[Marker], Iterable[Path]]:
    """Return what marks each predictor's results, and the images.

    Raises UsageError for --truth where an image has several labels, or no true class.
    """
    listed = list[Path]()
    if options.truth not in (AUTO, "none"):
        if any(each.classes.multi_label for each in predictors):
            raise UsageError("--truth: is for models with one class per image; leave it out")
        images = listed = list(images)
    return [Marker.of(options.truth, listed, each.classes) for each in predictors], images


def _write(options: ClassifyOptions, sheet: "ContactSheet | None", table: CsvTable | None) -> None:
    """Write contact sheet and table, and name them with what they hold."""
    if options.sheet and sheet and sheet.tiles:
        write_whole(options.sheet, sheet.png())
        left_out = f", {sheet.skipped} more left out" if sheet.skipped else ""
        drawn = counted(len(sheet.tiles), "image")
        note(f"wrote {options.sheet}: contact sheet of {drawn}{left_out}")
    if options.csv and table and options.csv != STDOUT:
        write_whole(options.csv, table.text().encode("utf-8", "surrogateescape"))
        note(f"wrote {options.csv}: {counted(len(table.rows), 'row')}")


def _finish_without_reader() -> None:
    """Go on when stdout is closed: the contact sheet is still wanted."""
    if stdout := click.get_current_context().obj:
        stdout.goes_on = True


def save_features(
    classifiers: Sequence[Classifier], images: Iterable[Path], path: Path, *, as_json: bool
) -> int:
    """Save the embeddings of all readable images: `names` and `features`, [images, ...]."""
    if len(classifiers) != 1:
        raise UsageError("--save-features: takes one artefact at a time")
    (classifier,) = classifiers
    classifier.check_features()
    artefact, batch, rows = str(classifier.artefact.path), Batch(), {}
    with only_python_stderr(), answered(classifier.prepared_features, images) as answers:
        for image, features in answers:
            with batch.skipping(image):
                rows[image] = features()
    if rows:
        file = io.BytesIO()
        names = np.array([str(image) for image in rows])
        np.savez(file, names=names, features=np.stack(list(rows.values())))
        write_whole(path, file.getvalue())
    if as_json:
        printer = JsonPrinter([artefact], [artefact])
        for image, row in rows.items():
            printer.add_row(image, artefact, {"shape": list(row.shape)})
        printer.close(batch.failed)
    else:
        shape = " x ".join(map(str, classifier.engine.output_shape[1:]))
        echo(f"{path}: {len(rows)} images, {shape} numbers each")
    return batch.close()
