"""Write a commented kedge.toml from a model and a folder of images: the command `kedge init`."""

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_convert.commands.fit_input import COUNT, TRUTH, FitInputOptions, drawn, fitted
from kedge_convert.commands.float_model_options import FloatModelOptions
from kedge_convert.load import registry, saved_model
from kedge_convert.load.application import DEMO
from kedge_convert.load.request import SourceRequest
from kedge_convert.matrix import draft
from kedge_convert.matrix.draft import Draft, ImageFolders, Key
from kedge_convert.sampling import Sampling
from kedge_convert.worker.process import ended_by_signals
from kedge_models.cards import card
from kedge_runtime.artefact.labels import read_labels
from kedge_runtime.commands.options import pixel_options
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.files import write_whole
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.output import echo, echo_folded

if TYPE_CHECKING:
    from kedge_convert.fitting.search import InputFit
    from kedge_convert.fitting.subject import Subject

PATH = click.Path(path_type=Path)
MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True)
class InitOptions:
    """Hold the command's options as click reads them."""

    model: str | None
    images: Path | None
    drift_images: Path | None
    config: Path
    force: bool
    card: str | None
    labels: str | None
    pixels: InputOptions


@click.command()
@click.argument("model", required=False)
@click.argument("images", required=False, type=PATH)
@click.option(
    "--drift-images",
    type=PATH,
    metavar="DIR",
    help="Folder to measure the drift on. Default: IMAGES, or its part test or val.",
)
@click.option(
    "--config",
    type=PATH,
    default=Path("kedge.toml"),
    show_default=True,
    metavar="FILE",
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--card", help="The application MODEL was built from; `kedge models` lists them.")
@click.option("--labels", help="FILE with a class a line, or imagenet.")
@pixel_options
def command(**values: Any) -> int:
    """Write a commented kedge.toml for MODEL and the folder IMAGES.

    MODEL is as for kedge convert. Default: the only model and the only folder of images here. If
    nothing tells the preprocessing, and the folders name the classes, kedge fit-input finds it.
    Every assumption is a line on stdout, and a comment in the file.
    """
    options = InitOptions(**values)
    if os.path.lexists(options.config) and not options.force:
        raise UsageError(
            f"{options.config}: exists; --force overwrites it, --config FILE writes another"
        )
    with ended_by_signals():
        written = _draft(_with_defaults(options))
    write_whole(options.config, draft.text(written).encode())
    for key in written.keys:
        echo_folded(f"{key.name} = {key.value}  # {key.why}")
    if written.agreement is not None:
        gate = draft.gate_line(written.agreement)
        echo_folded(f"{gate}  # {draft.gate_reason(written.measured_on)} {draft.AFTER}")
    name = "" if options.config == Path("kedge.toml") else f" {shlex.quote(str(options.config))}"
    echo(f"wrote {options.config}; next: kedge build{name}")
    return 0


def _with_defaults(options: InitOptions) -> InitOptions:
    """Fill in the only model and the only folder of images of the current folder."""
    model = options.model or _only("MODEL", "model", [str(path) for path in _models()])
    images = options.images
    if images is None and model != DEMO:
        found = [str(path) for path in _image_folders() if str(path) != model]
        images = Path(_only("IMAGES", "image folder", found))
    return replace(options, model=model, images=images)


def _only(argument: str, noun: str, found: list[str]) -> str:
    if len(found) == 1:
        return found[0]
    listed = f" ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})" if found else ""
    raise UsageError(
        f"{argument} is missing, and this folder holds {counted(len(found), noun)}{listed}: "
        "kedge init MODEL IMAGES"
    )


def _models() -> Iterator[Path]:
    for path in sorted(Path().iterdir()):
        if path.suffix in MODEL_SUFFIXES or (path.is_dir() and saved_model.holds(path)):
            yield path


def _image_folders() -> Iterator[Path]:
    from kedge_runtime.image.folder import find_images

    for path in sorted(Path().iterdir()):
        if path.is_dir() and not path.name.startswith(".") and not saved_model.holds(path):
            try:
                find_images(path)
            except UsageError:  # it holds none
                continue
            yield path


def _draft(options: InitOptions) -> Draft:
    model, keys = str(options.model), list[Key]()
    folders = None
    if options.images is not None:
        folders = _folders(options.images, options.drift_images)
    _check(options)
    if registry.is_path(model):
        keys += _own_model(options, folders)
    else:
        if model != DEMO:
            keys.append(Key("source", draft.quoted(model), "a card: kedge models"))
        keys += _given(options)
    name = draft.model_name(model)
    targets = ", ".join(map(draft.quoted, draft.TARGETS))
    keys.append(Key("targets", f"[{targets}]", "the smallest; float32 and float16 exist, too"))
    if folders is None:
        return Draft(name, tuple(keys))
    keys += _folder_keys(options, folders)
    return draft.with_images(name, tuple(keys), folders.drift)


def _folders(images: Path, drift: Path | None) -> ImageFolders:
    for name, folder in (("IMAGES", images), ("--drift-images", drift)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{name}: {folder}: no such folder; give a folder of images")
    found = draft.image_folders(images)
    if drift is None:
        return found
    return replace(found, drift=drift, why="as given; the drift is measured on these")


def _folder_keys(options: InitOptions, folders: ImageFolders) -> Iterator[Key]:
    config = options.config
    if options.model != DEMO:
        why = "calibration and validation images; kedge draws 200 and 100"
        yield Key("calibrate", draft.placed("calibrate", folders.calibration, config), why)
    why = folders.why if options.model != DEMO else "the drift is measured on these"
    yield Key("images", draft.placed("images", folders.drift, config), why)


def _own_model(options: InitOptions, folders: ImageFolders | None) -> Iterator[Key]:
    """Yield the keys of a model file: its path, classes and preprocessing. Raises UsageError."""
    if folders is None:
        raise AssertionError("only the demo has images of its own")
    config = options.config
    yield Key("source", draft.placed("source", str(options.model), config), "the float model")
    yield from _given(options)
    yield from _preprocessing(options, folders)


def _preprocessing(options: InitOptions, folders: ImageFolders) -> list[Key]:
    from kedge_convert import asking
    from kedge_convert.fitting.subject import open_settled
    from kedge_convert.worker.progress import Progress
    from kedge_runtime.output import quiet

    asked = _fit_options(options, folders)
    request = replace(
        asked.request, pixels=options.pixels, command=shlex.join(["kedge", *sys.argv[1:]])
    )
    registry.check(request)
    with Progress() as progress:
        with progress.stage("load model"), quiet():
            subject, settled = open_settled(request)
        asking.refuse(request, subject.labelling.missing)
        if not settled.missing:
            return []
        if not _tells_classes(subject, asked):
            asking.refuse(request, settled.missing)
        fit = fitted(subject, asked, progress)
    if not fit.informative:
        asking.refuse(request, settled.missing)
    return list(_found(subject, fit, options.pixels))


def _fit_options(options: InitOptions, folders: ImageFolders) -> FitInputOptions:
    return FitInputOptions(
        model=str(options.model),
        images=folders.calibration,
        truth=TRUTH,
        count=COUNT,
        seed=Sampling.seed,
        described=FloatModelOptions(
            card=options.card,
            weights=SourceRequest.weights,
            labels=options.labels,
            head=None,
            size=None,
        ),
        as_json=False,
    )


def _tells_classes(subject: "Subject", options: FitInputOptions) -> bool:
    from kedge_runtime.drift.truth import truth_by

    return truth_by(options.truth, drawn(options), subject.labelling.labels) is not None


def _check(options: InitOptions) -> None:
    """Raise UsageError for an unknown card, an idle option, or labels that can't be read."""
    from kedge_convert import asking

    model = str(options.model)
    if not registry.is_path(model) and model != DEMO:
        card(model)
    asking.refuse_idle(SourceRequest(model, card=options.card))
    if options.labels and options.labels != "imagenet":
        read_labels(Path(options.labels))


def _given(options: InitOptions) -> Iterator[Key]:
    """Yield the keys of what the user says of the model."""
    values: dict[str, object] = {"card": options.card, "labels": options.labels}
    for name, value in (values | vars(options.pixels)).items():
        if value is not None and value != "":
            yield Key(name, _in_toml(name, value, options.config), "as given")


def _in_toml(name: str, value: object, config: Path) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    is_file = name == "labels" and value != "imagenet"
    return draft.placed(name, value, config) if is_file else draft.quoted(value)


def _found(subject: "Subject", fit: "InputFit", given: InputOptions) -> Iterator[Key]:
    """Yield the keys that kedge fit-input found, but those that the user gave."""
    winner, images = fit.winner, len(fit.normalisations.best.values)
    right = fit.normalisations.best.right
    share = "" if right is None else f", {100 * right.mean():.0f} % right"
    why = f"kedge fit-input on {counted(images, 'labelled image')}{share}"
    if given.preprocess is None:
        unsure = fit.geometries is None or not fit.geometries.decided
        note = "; others fit as well: use the one you trained with" if unsure else ""
        yield Key("preprocess", draft.quoted(winner.pipelines[0]), why + note)
    if given.normalisation is None and not subject.normaliser:
        note = "" if fit.decided else "; others fit as well: use the one you trained with"
        yield Key("normalisation", draft.quoted(winner.normalisation), why + note)
        if "--colour" in winner.normalisation_flags and given.colour is None:
            yield Key("colour", draft.quoted(winner.colour), why)
