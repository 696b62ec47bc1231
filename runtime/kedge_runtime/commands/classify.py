"""`kedge classify`."""

import io
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.foreign import ModelFile, read_model
from kedge_runtime.classify import contact_sheet
from kedge_runtime.classify.classifier import Classifier, Predictor
from kedge_runtime.classify.ensemble import Ensemble
from kedge_runtime.classify.results import Result, Rule, disagree
from kedge_runtime.commands import answers
from kedge_runtime.commands.answers import Batch, split
from kedge_runtime.commands.options import (
    SHARE,
    ForeignOptions,
    foreign_options,
    isolate_option,
    read_said,
    read_trust,
    trust_options,
)
from kedge_runtime.commands.stream import is_stream, stream_options, watch
from kedge_runtime.engines.choice import ENGINES, EngineOptions
from kedge_runtime.errors import UsageError
from kedge_runtime.files import check_place, write_whole
from kedge_runtime.output import echo, echo_json, quiet, say

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="ARTEFACT... IMAGE...")
@click.option(
    "--top", default=5, show_default=True, type=click.IntRange(min=1), help="Answers per image."
)
@click.option("--ensemble", is_flag=True, help="Average the artefacts' probabilities.")
@click.option("--min-confidence", type=SHARE, help="Less than this is unknown.")
@click.option("--max-entropy", type=SHARE, help="More than this is unknown; 0 sure, 1 no idea.")
@click.option(
    "--threshold", type=SHARE, help="For models with several answers, instead of their own."
)
@click.option("--sheet", type=FILE, metavar="PNG", help="Draw the images with their answers.")
@click.option(
    "--save-features", type=FILE, metavar="NPZ", help="For models without a top: their embeddings."
)
@click.option("--contract", type=FILE, metavar="JSON", help="For artefacts that kedge didn't make.")
@foreign_options
@trust_options
@click.option("--engine", type=click.Choice(list(ENGINES)), help="[default: the format's]")
@click.option("--delegate", help="edgetpu[:usb|pci|N], or a delegate's library.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of the engine [default: all cores]."
)
@isolate_option
@stream_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; of a stream one per line."
)
def classify(**options: Any) -> int:
    """Name what is in images.

    ARTEFACT ends in .tflite or .onnx. IMAGE is a file, a folder that is searched, a 'pattern/*.jpg'
    in quotes, or - for names on stdin. Several artefacts are compared side by side.

    A model that kedge didn't make, or Teachable Machine's zip, runs with --labels, --preprocess,
    --normalisation and --head, as `kedge seal` takes them.

    --camera or --video takes the place of images and answers frame by frame, until Ctrl-C.
    """
    _check_places(options)
    streaming = is_stream(options)
    artefacts, images = split(options["words"], streaming=streaming, zips=True)
    classifiers = _open(artefacts, options)
    if options["save_features"]:
        return _features(classifiers, images, options)
    for classifier in classifiers:
        classifier.check_answers()
    session = _session(classifiers, options)
    if streaming:
        return _watch(session, options)
    return _answers(session, images, options)


def _check_places(options: dict[str, Any]) -> None:
    for name, suffix in {"sheet": ".png", "save_features": ".npz"}.items():
        if options[name]:
            check_place("--" + name.replace("_", "-"), options[name], suffix)
    if options["sheet"] and options["save_features"]:
        raise UsageError("--sheet: features are no answers; leave it or --save-features out")


def _open(artefacts: list[Path], options: dict[str, Any]) -> list[Classifier]:
    engine = {name: options[name] for name in ("threads", "delegate", "engine", "isolate")}
    said = read_said(options, EngineOptions(**engine))
    trust = read_trust(options)
    classifiers = [_loaded(read_model(path, trust), said) for path in artefacts]
    said.refuse_all_sealed(bool(classifier.artefact.digest) for classifier in classifiers)
    return classifiers


def _loaded(model: ModelFile, said: ForeignOptions) -> Classifier:
    contract = said.contract(model, f"kedge classify {shlex.quote(model.name)} IMAGE")
    with quiet():
        # What carries no seal may come from anybody.
        engine = replace(said.engine, isolate=said.engine.isolate or contract is not None)
        classifier = Classifier.of(model.content, engine, contract)
    if classifier.engine.note:
        say(f"{model.name}: {classifier.engine.note}")
    return classifier


@dataclass(frozen=True)
class Session:
    """What answers (a classifier each, or one ensemble of them), its names, and the question."""

    artefacts: tuple[str, ...]
    models: tuple[Predictor, ...]
    titles: tuple[str, ...]
    top: int
    rule: Rule

    def ask(self, image: Path) -> list[Result]:
        """Return each model's answer. Raises ImageError."""
        return [model(image, top=self.top, rule=self.rule) for model in self.models]


def _session(classifiers: list[Classifier], options: dict[str, Any]) -> Session:
    limits = ("min_confidence", "max_entropy", "threshold")
    rule = Rule(**{name: options[name] for name in limits if options[name] is not None})
    if rule.threshold is not None and not any(c.classes.multi_label for c in classifiers):
        raise UsageError("--threshold: each of its images has one answer; see --min-confidence")
    names = tuple(str(classifier.artefact.path) for classifier in classifiers)
    if options["ensemble"]:
        return Session(names, (Ensemble(classifiers),), ("ensemble",), options["top"], rule)
    return Session(names, tuple(classifiers), names, options["top"], rule)


def _watch(session: Session, options: dict[str, Any]) -> int:
    if len(session.models) != 1:
        raise UsageError("a stream takes one artefact, or several with --ensemble")
    return watch(session.models[0], session.artefacts, session.rule, options)


def _answers(session: Session, images: Iterable[Path], options: dict[str, Any]) -> int:
    printed = click.get_current_context().obj
    if options["sheet"] and printed:
        printed.goes_on = True  # for the sheet, when nobody reads the words
    batch, board = Batch(), contact_sheet.ContactSheet(session.titles)
    rows: list[dict[str, Any]] = []

    def ask(image: Path) -> list[Result]:
        results = session.ask(image)
        if options["sheet"]:
            board.add(image, results)
        return results

    shown = _silent if options["as_json"] else _shown
    for image, results in shown(session, batch.run(images, ask)):
        rows += map(partial(answers.plain, image), session.titles, results)
    if options["sheet"] and board.tiles:
        write_whole(options["sheet"], board.png())
    if board.skipped:
        say(f"the contact sheet holds {len(board.tiles)} images of {batch.count}")
    if options["as_json"]:
        _print_json(session.artefacts, rows, batch, ensemble=options["ensemble"])
    return batch.close()


Answered = Iterator[tuple[Path, list[Result]]]


def _shown(session: Session, answered: Answered) -> Answered:
    """Print each image's answers on their way."""
    if len(session.titles) == 1:
        for image, results in answered:
            click.echo(answers.words(image, results[0], session.top))
            yield image, results
        return
    split_votes = count = 0
    click.echo(answers.comparison_head(session.titles))
    for image, results in answered:
        count += 1
        split_votes += disagree(results)
        echo(answers.comparison_row(image, results))
        yield image, results
    echo("", f"! the models disagree on {split_votes} of {count} images")


def _silent(_: Session, answered: Answered) -> Answered:
    return answered


def _features(
    classifiers: list[Classifier], images: Iterable[Path], options: dict[str, Any]
) -> int:
    """Save the embeddings of all readable images: `names` and `features`, [images, ...]."""
    if len(classifiers) != 1:
        raise UsageError("--save-features: takes one artefact at a time")
    (classifier,) = classifiers
    classifier.check_features()
    batch = Batch()
    rows = dict(batch.run(images, classifier.features))
    if rows:
        file = io.BytesIO()
        names = np.array([str(path) for path in rows])
        np.savez(file, names=names, features=np.stack(list(rows.values())))
        write_whole(options["save_features"], file.getvalue())
    artefact = str(classifier.artefact.path)
    if options["as_json"]:
        _print_json([artefact], [_shape(path, artefact, row) for path, row in rows.items()], batch)
    else:
        shape = " x ".join(map(str, classifier.engine.output_shape[1:]))
        echo(f"{options['save_features']}: {len(rows)} images, {shape} numbers each")
    return batch.close()


def _shape(path: Path, artefact: str, row: Floats) -> dict[str, Any]:
    return {"image": str(path), "artefact": artefact, "shape": list(row.shape)}


def _print_json(
    artefacts: Sequence[str], results: list[dict[str, Any]], batch: Batch, *, ensemble: bool = False
) -> None:
    """Print the documented object (docs/json.md)."""
    payload = {
        "schema": 1,
        "command": "classify",
        "artefacts": list(artefacts),
        "ensemble": ensemble,
        "results": results,
        "failed": batch.failed,
    }
    echo_json(payload)
