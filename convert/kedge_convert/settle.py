"""Settle the input of a source and the names of its classes.

Options come first, then the model's card, then its own input stage.
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kedge_convert.images import CALIBRATE
from kedge_convert.load import input_stage
from kedge_convert.load.output_activation import Head
from kedge_convert.load.registry import about
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_models.cards import imagenet
from kedge_runtime.artefact.contract import Geometry, Input, Label, Normalisation
from kedge_runtime.artefact.labels import read_labels, without_numbers
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.input_options import (
    InputOptions,
    MissingOption,
    describe_input,
    missing_options,
    resolve_input,
)
from kedge_runtime.image.pipelines import (
    FORMULAS,
    NORMALISATIONS,
    PIPELINES,
    Pipeline,
    formula,
    normalisation_name,
    normalisation_text,
    read_normalisation,
)


@dataclass(frozen=True)
class Labelling:
    """`labels` in the order of the output; `offset`: outputs before the first label's.

    `missing`: options that would tell them; `notes`: lines for the user.
    """

    labels: tuple[Label, ...] = ()
    offset: int = 0
    missing: tuple[MissingOption, ...] = ()
    notes: tuple[str, ...] = ()


def labelled(request: SourceRequest, loaded: LoadedModel, head: Head) -> Labelling:
    """Return the names of a head's classes. Raises UsageError where their number is another."""
    name, outputs = loaded.name, head.model.outputs[0].shape[-1]
    if head.kind == "features":
        if request.labels:
            raise UsageError(f"--labels: {name} gives features, which have no names; leave it out")
        return Labelling()
    names, notes = _named(request, loaded, outputs)
    if names is None:
        return Labelling(missing=(classes(outputs),))
    # TensorFlow's own ImageNet models: output 0 is the background, and has no label.
    if outputs == len(names) + 1 and names == imagenet():
        return Labelling(names, 1, notes=notes)
    if len(names) != outputs:
        raise _miscounted(request, name, outputs, len(names))
    return Labelling(names, notes=notes)


Named = tuple[tuple[Label, ...] | None, tuple[str, ...]]


def _named(request: SourceRequest, loaded: LoadedModel, outputs: int) -> Named:
    """Return the labels of the user, the card or the folders, and notes for the user."""
    if request.labels == "imagenet":
        return imagenet(), ()
    if request.labels:
        return _read(request.labels)
    if loaded.facts.labels is not None:
        return loaded.facts.labels, ()
    folders = class_folders(request.folder)
    if len(folders) != outputs:
        return None, ()
    order = "in alphabetical order, as in Keras"
    note = f"labels: the {outputs} folders of {request.folder} {order}"
    return tuple(Label(folder, folder) for folder in folders), (note,)


def _read(path: str) -> Named:
    lines = read_labels(Path(path))
    names = without_numbers(lines)
    if names == lines:
        return lines, ()
    return names, (f"labels: {path} numbers its lines; the numbers are left out",)


def _miscounted(request: SourceRequest, name: str, outputs: int, count: int) -> UsageError:
    if request.labels in (None, "imagenet"):
        return UsageError(
            f"{name}: it has {outputs} classes, but there are {count} labels: "
            f"give --labels FILE with {outputs} lines"
        )
    return UsageError(
        f"{name}: it has {outputs} classes, but {request.labels} has {counted(count, 'line')}: "
        "a label file has one class a line, in the order of the output"
    )


def classes(outputs: int) -> MissingOption:
    """Return the request for the names of so many classes."""
    words = f"FILE with the names of its {outputs} classes, one a line, or imagenet"
    return MissingOption("--labels", f"{words}; without names for features: --head features")


def class_folders(folder: str | None) -> list[str]:
    """Return the names of a folder's subfolders of images; none where images lie beside them.

    In alphabetical order, as of Keras's `image_dataset_from_directory`.
    """
    if folder is None:
        return []
    images = find_images(Path(folder), CALIBRATE)
    names = {path.relative_to(folder).parts[0] for path in images}
    return sorted(names) if all((Path(folder) / name).is_dir() for name in names) else []


UNKNOWN = Input(Geometry(1, 1), Normalisation())


@dataclass(frozen=True)
class SettledInput:
    """The input of a contract; options that are `missing` to settle it; one `line` about it."""

    input: Input = UNKNOWN
    missing: tuple[MissingOption, ...] = ()
    line: str = ""


def settle_input(request: SourceRequest, loaded: LoadedModel, model: Any) -> SettledInput:
    """Return the input of a model, [n, h, w, channels]. Raises UsageError for conflicts."""
    inner = input_stage.normalises(loaded.model)
    words = _with_own(request, loaded, inner)
    default, reason = _default(request, loaded)
    if missing := missing_options(words, default):
        return SettledInput(missing=missing)
    height, width, channels = model.inputs[0].shape[1:]
    spec = resolve_input(words, height, width, channels, default)
    return SettledInput(
        spec, line=describe_input(spec, _why(request.pixels, spec, reason, loaded, inner))
    )


def _with_own(request: SourceRequest, loaded: LoadedModel, inner: str | None) -> InputOptions:
    """Return the user's options with the normalisation of the card or of the model itself.

    Raises UsageError for bytes that would be normalised twice.
    """
    words = request.pixels
    if words.normalisation is not None:
        if inner and not loaded.facts.told_by and not request.force_input:
            _refuse_own(words.normalisation, loaded.name, inner)
        return words
    known = loaded.facts.normalisation
    if not request.force_input:
        _refuse_twice(words, loaded, inner)
    elif words.preprocess and PIPELINES[words.preprocess].normalisation:
        return words
    if known is None and inner is None:
        return words
    return replace(words, normalisation=normalisation_text(known or NORMALISATIONS["raw"]))


def _refuse_own(normalisation: str, name: str, inner: str) -> None:
    """Raise UsageError for a normalisation before a model that normalises bytes itself."""
    given = read_normalisation(normalisation)
    if normalisation_name(given) != "raw":
        raise UsageError(
            f"{name}: it would normalise twice: the model begins with its own normalisation of "
            f"bytes ({inner}), and --normalisation gives it {formula(given)}: leave "
            "--normalisation out, or give --normalisation raw (--force-input normalises twice)"
        )


def _refuse_twice(words: InputOptions, loaded: LoadedModel, inner: str | None) -> None:
    """Raise UsageError where two of card, model and pipeline normalise differently."""
    known, name = loaded.facts.normalisation, loaded.name
    # What the file's own preprocessor does comes before the model, and both count.
    if inner and not loaded.facts.told_by and known not in (None, NORMALISATIONS["raw"]):
        raise UsageError(
            f"{name}: begins with its own normalisation ({inner}), but --card {loaded.facts.card} "
            "has one too: give --normalisation raw (--force-input normalises twice)"
        )
    brought = PIPELINES[words.preprocess].normalisation if words.preprocess else ""
    own = "raw" if inner and not known else normalisation_text(known) if known else ""
    if brought and own and brought != own:
        begins = inner and not loaded.facts.told_by
        twice = "it would normalise twice: the model begins with its own normalisation of bytes"
        what = f"{twice} ({inner}), and" if begins else f"takes {own}, but"
        other = "--force-input normalises twice" if begins else "or another to override"
        raise UsageError(
            f"{name}: {what} --preprocess {words.preprocess} gives it {FORMULAS[brought]}: give "
            f"--normalisation {shlex.quote(own)} ({other})"
        )


def _default(request: SourceRequest, loaded: LoadedModel) -> tuple[Pipeline | None, str]:
    """Return the geometry of the card or of the model itself, and its origin."""
    if loaded.facts.pipeline is not None:
        told_by = loaded.facts.told_by or loaded.name
        return loaded.facts.pipeline, f"card {loaded.facts.card}" if loaded.facts.card else told_by
    # The user's own size goes before what the model would do by itself.
    with about(loaded.name):
        layer = None if request.size else input_stage.leading(loaded.model)
        if layer is None:
            return None, ""
        return input_stage.pipeline(layer), f"its layer {layer.name}"


def _why(
    words: InputOptions, spec: Input, reason: str, loaded: LoadedModel, inner: str | None
) -> str:
    """Return the origin of the input."""
    parts = [words.options() or reason]
    if reason and words.given and words.preprocess is None:
        parts.append(reason)
    if inner and loaded.facts.told_by and words.normalisation is None:
        parts.append(f"before the model's own normalisation: {inner}")
    elif inner and normalisation_name(spec.normalisation) != "raw":
        parts.append(f"on top of its own normalisation, {inner}, as --force-input says")
    elif inner and words.normalisation is None:
        parts.append(f"bytes as they are, the model begins with its own normalisation: {inner}")
    return "; ".join(parts)
