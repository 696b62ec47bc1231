"""Settle how a source is fed and what its classes are called.

Options come first, then the model's card, then what its own input stage does.
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kedge_convert.images import CALIBRATE
from kedge_convert.load import input_stage
from kedge_convert.load.output_activation import Head
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_models.labels.lists import imagenet
from kedge_runtime.artefact.contract import Geometry, Input, Label, Normalisation
from kedge_runtime.artefact.labels import read_labels, without_numbers
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image import input_options
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.input_options import InputOptions, MissingOption
from kedge_runtime.image.pipelines import (
    FORMULAS,
    NORMALISATIONS,
    PIPELINES,
    Pipeline,
    in_rgb,
    normalisation_text,
)


@dataclass(frozen=True)
class Labelling:
    """`labels` in the order of the output; `offset`: outputs before the first label's; what is
    `missing` to know them; `notes`: what the user should know, a line each.
    """

    labels: tuple[Label, ...] = ()
    offset: int = 0
    missing: tuple[MissingOption, ...] = ()
    notes: tuple[str, ...] = ()


def labelled(request: SourceRequest, found: LoadedModel, head: Head) -> Labelling:
    """Return the names of a head's classes. Raises UsageError where their number is another."""
    name, outputs = found.name, head.model.outputs[0].shape[-1]
    if head.kind == "features":
        if request.labels:
            raise UsageError(f"--labels: {name} gives features, which have no names; leave it out")
        return Labelling()
    known, notes = _named(request, found, outputs)
    if known is None:
        return Labelling(missing=(classes(outputs),))
    # TensorFlow's own ImageNet models: output 0 is the background, and has no label.
    if outputs == len(known) + 1 and known == imagenet():
        return Labelling(known, 1, notes=notes)
    if len(known) != outputs:
        raise _miscounted(request, name, outputs, len(known))
    return Labelling(known, notes=notes)


Named = tuple[tuple[Label, ...] | None, tuple[str, ...]]


def _named(request: SourceRequest, found: LoadedModel, outputs: int) -> Named:
    """Return the labels that the user, the card or the folders give, and what is to be said."""
    if request.labels == "imagenet":
        return imagenet(), ()
    if request.labels:
        return _read(request.labels)
    if found.facts.labels is not None:
        return found.facts.labels, ()
    folders = class_folders(request.folder)
    if len(folders) != outputs:
        return None, ()
    order = "in alphabetical order, as Keras takes them"
    note = f"labels: the {outputs} folders of {request.folder} {order}"
    return tuple(Label(folder, folder) for folder in folders), (note,)


def _read(path: str) -> Named:
    given = read_labels(Path(path))
    names = without_numbers(given)
    if names == given:
        return given, ()
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
    """Return the question for the names of so many classes."""
    words = f"FILE with the names of its {outputs} classes, one a line, or imagenet"
    return MissingOption("--labels", f"{words}; without names for features: --head features")


def class_folders(folder: str | None) -> list[str]:
    """Return the names of the folders in a folder that hold images, in the order of Keras's
    `image_dataset_from_directory`: alphabetical; none where images lie beside them.
    """
    if folder is None:
        return []
    images = find_images(Path(folder), CALIBRATE)
    names = {path.relative_to(folder).parts[0] for path in images}
    return sorted(names) if all((Path(folder) / name).is_dir() for name in names) else []


UNKNOWN = Input(Geometry(1, 1), Normalisation())


@dataclass(frozen=True)
class Feeding:
    """The input of a contract; what is `missing` to settle it; one `line` that says it all."""

    input: Input = UNKNOWN
    missing: tuple[MissingOption, ...] = ()
    line: str = ""


def fed(request: SourceRequest, found: LoadedModel, model: Any) -> Feeding:
    """Return how a model, [n, height, width, channels], is fed. Raises UsageError for conflicts."""
    inner = input_stage.normalises(found.model)
    words = _with_own(request.pixels, found, inner)
    default, reason = _default(request, found)
    if missing := input_options.missing_options(words, default):
        return Feeding(missing=missing)
    height, width, channels = model.inputs[0].shape[1:]
    spec = input_options.resolve_input(words, height, width, channels, default)
    return Feeding(
        spec,
        line=input_options.describe_input(spec, _why(request.pixels, spec, reason, found, inner)),
    )


def _with_own(words: InputOptions, found: LoadedModel, inner: str | None) -> InputOptions:
    """Return the user's words with the normalisation that the card or the model itself tells."""
    if words.normalisation is not None:
        return words
    known = found.facts.normalisation
    _refuse_twice(words, found, inner)
    if known is None and inner is None:
        return words
    return replace(words, normalisation=normalisation_text(known or NORMALISATIONS["raw"]))


def _refuse_twice(words: InputOptions, found: LoadedModel, inner: str | None) -> None:
    """Raise UsageError where two of card, model and pipeline normalise, and not alike."""
    known, name = found.facts.normalisation, found.name
    # What the file's own preprocessor does comes before the model, and both count.
    if inner and not found.facts.told_by and known not in (None, NORMALISATIONS["raw"]):
        raise UsageError(
            f"{name}: begins with its own normalisation ({inner}), but --card {found.facts.card} "
            "has one too: give --normalisation raw, or another to insist"
        )
    brought = PIPELINES[words.preprocess].normalisation if words.preprocess else ""
    own = "raw" if inner and not known else normalisation_text(known) if known else ""
    if brought and own and brought != own:
        begins = inner and not found.facts.told_by
        what = f"begins with its own normalisation ({inner})" if begins else f"takes {own}"
        raise UsageError(
            f"{name}: {what}, but --preprocess {words.preprocess} feeds {FORMULAS[brought]}: give "
            f"--normalisation {shlex.quote(own)}, or another to insist"
        )


def _default(request: SourceRequest, found: LoadedModel) -> tuple[Pipeline | None, str]:
    """Return the geometry that the card or the model itself tells, and what told it."""
    if found.facts.pipeline is not None:
        told_by = found.facts.told_by or found.name
        return found.facts.pipeline, f"card {found.facts.card}" if found.facts.card else told_by
    # The user's own size goes before what the model would do by itself.
    layer = None if request.size else input_stage.leading(found.model, found.name)
    if layer is None:
        return None, ""
    return input_stage.pipeline(layer, found.name), f"its layer {layer.name}"


def _why(
    words: InputOptions, spec: Input, reason: str, found: LoadedModel, inner: str | None
) -> str:
    """Return where the input comes from."""
    parts = [words.options() or reason]
    if reason and words.given and words.preprocess is None:
        parts.append(reason)
    if inner and found.facts.told_by and words.normalisation is None:
        parts.append(f"before the model's own normalisation: {inner}")
    elif inner and words.normalisation is None:
        parts.append(f"bytes as they are, the model begins with its own normalisation: {inner}")
    elif inner and in_rgb(spec.normalisation) != NORMALISATIONS["raw"]:
        parts.append(f"on top of its own normalisation, {inner}, as --normalisation insists")
    return "; ".join(parts)
