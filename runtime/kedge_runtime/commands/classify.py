"""Classify images: the command `kedge classify`."""

import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from kedge_runtime.artefact.foreign import ModelFile, read_model
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.contact_sheet import ContactSheet
from kedge_runtime.classify.ensemble import Ensemble
from kedge_runtime.classify.marks import AUTO, Marker, summaries
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Rule
from kedge_runtime.commands.answers import ENSEMBLE, JsonPrinter, printer_for
from kedge_runtime.commands.arguments import SHARE, Batch, completing, split
from kedge_runtime.commands.csv_table import CsvTable
from kedge_runtime.commands.options import (
    FILE,
    ForeignOptions,
    contract_options,
    isolated_engine_options,
    record,
    trust_options,
)
from kedge_runtime.commands.stream import (
    StreamReport,
    StreamRequest,
    classify_frames,
    stream_options,
)
from kedge_runtime.confidence.conformal import floor_for
from kedge_runtime.drift.truth import SCHEMES
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.files import check_place, write_whole
from kedge_runtime.output import echo, note, quiet, say

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


STDOUT = Path("-")


@dataclass(frozen=True)
class ClassifyOptions:
    """The options of `kedge classify`."""

    arguments: tuple[str, ...]
    top: int
    ensemble: bool
    second: Path | None
    rule: Rule
    sheet: Path | None
    csv: Path | None
    truth: str
    save_features: Path | None
    foreign: ForeignOptions
    trust: "Trust | None"
    engine: EngineOptions
    stream: StreamRequest
    as_json: bool

    def __post_init__(self) -> None:
        """Refuse unwritable paths, and options that exclude each other."""
        files = {"--sheet": (self.sheet, ".png"), "--save-features": (self.save_features, ".npz")}
        for option, (path, suffix) in files.items():
            if path is None:
                continue
            check_place(option, path, suffix)
            if self.stream.given:
                raise UsageError(f"{option}: is for images in files, not for streams")
        if self.csv and self.stream.given:
            raise UsageError("--csv: is for images in files, not for streams; see --json")
        if self.csv and self.save_features:
            raise UsageError("--csv: shows results, not features; omit it or --save-features")
        if self.csv and self.csv != STDOUT:
            check_place("--csv", self.csv, ".csv")
        elif self.csv and self.as_json:
            raise UsageError("--csv - and --json: both print on stdout; give --csv a file")
        if self.second and (self.ensemble or self.save_features):
            raise UsageError("--second: is for the answers of one artefact; give it alone")
        if self.sheet and self.save_features:
            raise UsageError("--sheet: shows results, not features; omit it or --save-features")


def _rule(**limits: float | None) -> Rule:
    return Rule(**{name: limit for name, limit in limits.items() if limit is not None})


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="ARTEFACT... IMAGE...")
@click.option(
    "--top",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of classes per image.",
)
@click.option("--ensemble", is_flag=True, help="Average the artefacts' probabilities.")
@click.option(
    "--second",
    type=FILE,
    metavar="FILE2",
    help="Ask this better artefact again where the answer is a near tie (`kedge calibrate "
    "--second`).",
)
@record(
    "rule",
    _rule,
    click.option(
        "--min-confidence", type=SHARE, help='Below this confidence the answer is "unknown".'
    ),
    click.option(
        "--max-entropy",
        type=SHARE,
        help='Above this normalised entropy (0 to 1) the answer is "unknown".',
    ),
    click.option("--threshold", type=SHARE, help="Override the threshold of a multi-label model."),
    click.option(
        "--coverage",
        type=SHARE,
        help="Name the fewest classes that hold the truth this often, as 90%; more than --top are "
        '"unknown". `kedge calibrate` prepares the artefact.',
    ),
)
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
@contract_options
@trust_options
@isolated_engine_options
@stream_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; of a stream one per line."
)
def classify(**options: Any) -> int:
    """Classify images.

    ARTEFACT ends in .tflite or .onnx. IMAGE is a file, a folder that is searched, a 'pattern/*.jpg'
    in quotes, or - for names on stdin. Several artefacts are compared side by side.

    A model file without a seal, or Teachable Machine's zip, needs --labels, --preprocess,
    --normalisation and --head, as `kedge seal` takes them.

    --camera or --video replaces the images: each frame is classified, until Ctrl-C.
    """
    return run(ClassifyOptions(**options))


def run(options: ClassifyOptions) -> int:
    """Classify images or frames, or save features; return the exit code."""
    artefacts, images = split(options.arguments, streaming=options.stream.given, zips=True)
    classifiers = open_all(artefacts, options)
    if options.save_features:
        return save_features(classifiers, images, options.save_features, as_json=options.as_json)
    predictors = check_predictors(classifiers, options)
    names = [str(classifier.artefact.path) for classifier in classifiers]
    names += [str(options.second)] if options.second else []
    try:
        if not options.stream.given:
            return classify_images(predictors, names, images, options)
        if len(predictors) != 1:
            raise UsageError("a stream takes one artefact, or several with --ensemble")
        report = StreamReport(names, options.top, options.as_json)
        return classify_frames(predictors[0], options.stream, options.rule, report)
    finally:
        for line in (line for each in predictors for line in each.summary()):
            note(line)


def open_all(artefacts: Sequence[Path], options: ClassifyOptions) -> list[Classifier]:
    """Open the artefacts. Raises ArtefactError, ContractError, EngineError, UsageError."""
    classifiers = [_open(read_model(path, options.trust), options) for path in artefacts]
    options.foreign.refuse_all_sealed(bool(each.artefact.digest) for each in classifiers)
    return classifiers


def _open(model: ModelFile, options: ClassifyOptions) -> Classifier:
    command = f"kedge classify {shlex.quote(model.name)} IMAGE"
    contract = options.foreign.contract(model, options.engine, command)
    with quiet():
        # A file without a seal isn't trusted, so it runs isolated.
        isolate = options.engine.isolate or contract is not None
        classifier = Classifier.of(
            model.content, replace(options.engine, isolate=isolate), contract
        )
    if classifier.engine.note:
        say(f"{model.name}: {classifier.engine.note}")
    return classifier


def check_predictors(
    classifiers: Sequence[Classifier], options: ClassifyOptions
) -> Sequence[Predictor]:
    """Return the classifiers, or their ensemble. Raises UsageError where options don't fit them."""
    for classifier in classifiers:
        classifier.check_answers()
    if options.rule.threshold is not None and not any(c.classes.multi_label for c in classifiers):
        raise UsageError("--threshold is for multi-label models only; see --min-confidence")
    predictors: Sequence[Predictor] = [Ensemble(classifiers)] if options.ensemble else classifiers
    if options.second:
        predictors = [_with_second(classifiers, options.second, options)]
    if options.rule.coverage is not None:
        for predictor in predictors:
            floor_for(options.rule.coverage, predictor.classes.floors)
    return predictors


def _with_second(
    classifiers: Sequence[Classifier], second: Path, options: ClassifyOptions
) -> Predictor:
    """Return the artefact with a second opinion. Raises UsageError for several artefacts."""
    from kedge_runtime.classify.second_opinion import SecondOpinion

    if len(classifiers) != 1:
        raise UsageError(f"--second: takes one artefact before it, got {len(classifiers)}")
    model = read_model(second, options.trust)
    return SecondOpinion(classifiers[0], _open(model, options), model.content)


def classify_images(
    predictors: Sequence[Predictor],
    artefacts: Sequence[str],
    images: Iterable[Path],
    options: ClassifyOptions,
) -> int:
    """Classify each image with each predictor, and print the results; return the exit code."""
    titles = [ENSEMBLE] if options.ensemble else list(artefacts)[: len(predictors)]
    markers, images = _markers(predictors, images, options)
    table = CsvTable(titles, options.top) if options.csv else None
    printed = table if options.csv == STDOUT else None
    printer = printer_for(titles, artefacts, options.top, as_json=options.as_json, table=printed)
    sheet = ContactSheet(titles) if options.sheet else None
    if options.sheet or options.csv:
        _finish_without_reader()
    batch = Batch()
    for image in images:
        with batch.skipping(image):
            with quiet():  # OpenCV prints about damaged images
                results = [p(image, top=options.top, rule=options.rule) for p in predictors]
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


def _write(options: ClassifyOptions, sheet: ContactSheet | None, table: CsvTable | None) -> None:
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
    for image in images:
        with batch.skipping(image), quiet():
            rows[image] = classifier.features(image)
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
