"""Derive the contract of a foreign file from the user's options, the file and the engine.

The user's options override the file's own facts. Nothing is guessed: one message lists every
missing option, and a line reports each fact that the file supplied.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kedge_runtime.artefact.content import digest
from kedge_runtime.artefact.contract import Contract, Geometry, Input, Label, Normalisation, Output
from kedge_runtime.artefact.file import ends_in_digest
from kedge_runtime.artefact.foreign import ModelFile, has_archive, member_text, metadata_of
from kedge_runtime.artefact.kinds import Colour, Kind
from kedge_runtime.artefact.labels import parse, read_labels, without_numbers
from kedge_runtime.artefact.model_options import ModelOptions
from kedge_runtime.artefact.output_kind import (
    check_head,
    kind_of_last_operator,
    probe_outputs,
    sums_to_one,
)
from kedge_runtime.artefact.provenance import Provenance
from kedge_runtime.checks.hardware import identity
from kedge_runtime.engines.base import BYTES, Engine
from kedge_runtime.errors import UsageError, about, counted
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.input_options import (
    MissingOption,
    describe_input,
    missing_options,
    request_for,
    resolve_input,
)
from kedge_runtime.modelfile.network import read_network

LOST = "carries no kedge seal: cut short (copy it again), or not made by kedge: "
# The number of ImageNet's classes; TensorFlow's own models have the background before them.
IMAGENET = 1000


@dataclass(frozen=True)
class DerivedContract:
    """A contract, and a line for each derived fact with its source."""

    contract: Contract
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ModelShape:
    """A model's input size in pixels, its channels, and the number of its outputs."""

    height: int
    width: int
    channels: int
    outputs: int


@dataclass(frozen=True)
class FileFacts:
    """The facts that the file itself states, each with its source."""

    normalisation: Normalisation | None = None
    normalisation_from: str = ""
    labels: tuple[Label, ...] = ()
    labels_from: str = ""


def derive_contract(
    model: ModelFile, options: ModelOptions, engine: Engine, command: str
) -> DerivedContract:
    """Return the contract of a foreign file that `engine` has loaded.

    `command`: the user's command, which the message on missing options repeats in full. Raises one
    UsageError that lists every missing option, or names a contradiction.
    """
    with about(model.name):
        shape = _shape_of(engine, options.head)
    facts = _facts_of(model, engine)
    kind, source = _kind(model, options, engine, shape)
    if missing := list(_missing(model, options, facts, kind)):
        raise _request(model, options, command, missing)
    assert kind is not None
    labels, offset, label_lines = _labels(model, options, facts, kind, shape)
    spec = _input(model, options, engine, shape, facts)
    output = Output(kind, engine.output, label_offset=offset, thresholds=_thresholds(options, kind))
    check_head(spec, engine, kind)
    lines = (
        describe_input(spec, _input_source(model, options, facts)),
        f"output: {counted(shape.outputs, 'number')}, {kind} ({source})",
    )
    return DerivedContract(
        Contract(spec, output, labels, _provenance(model)), (*lines, *label_lines)
    )


def _request(
    model: ModelFile, options: ModelOptions, command: str, missing: list[MissingOption]
) -> UsageError:
    whole = " ".join(
        filter(None, (command, options.options(), *(each.example for each in missing)))
    )
    # Without options the user may have meant a sealed file, which lost its end on the way.
    sealed = ends_in_digest(model.content.data)
    lost = "" if options.given or model.unpacked or sealed else LOST
    return UsageError(f"{model.name}: {lost}{request_for(missing)}:", run=whole)


def _shape_of(engine: Engine, head: Kind | None) -> ModelShape:
    shape, layout = engine.input_shape, engine.input.layout
    sides = _sides(shape, layout)
    if sides is None or shape[0] != 1:
        raise UsageError(
            f"its input is {_shown(shape)}, no image; kedge feeds one image of 1 or 3 "
            "channels at a time"
        )
    if sides[:2] == (1, 1):
        raise UsageError(
            f"the size of its input is open ({_shown(shape)}): export it with a fixed "
            "height and width"
        )
    several = sum(side != 1 for side in engine.output_shape[1:]) > 1
    if several and head != "features":
        raise UsageError(
            f"its output is {_shown(engine.output_shape)}, no scores of classes; "
            "--head features takes it as numbers"
        )
    return ModelShape(*sides, math.prod(engine.output_shape))


def _sides(shape: tuple[int, ...], layout: str) -> tuple[int, int, int] | None:
    """Return height, width, channels of an input, None for one that is no image."""
    if layout == "flat" and len(shape) == 2:
        side = math.isqrt(shape[1])
        return (side, side, 1) if side * side == shape[1] else None
    if layout == "nhw" and len(shape) == 3:
        return shape[1], shape[2], 1
    if len(shape) != 4:
        return None
    height, width, channels = shape[1:] if layout == "nhwc" else (*shape[2:], shape[1])
    return height, width, channels


def _facts_of(model: ModelFile, engine: Engine) -> FileFacts:
    metadata = metadata_of(model.content)
    facts = FileFacts(metadata.normalisation, "its metadata" if metadata.normalisation else "")
    if engine.input.dtype == "uint8" and engine.input.quantisation:
        # Overrides the metadata: programs copy an image's bytes into a uint8 input.
        quantisation = engine.input.quantisation
        shift = (quantisation.zero_point * quantisation.scale,) * 3
        bytes_as_they_are = Normalisation("rgb", 1 / quantisation.scale, shift)
        facts = FileFacts(bytes_as_they_are, "bytes as they are: uint8 input")
    if metadata.labels and has_archive(model.content):
        text = member_text(model.content, metadata.labels)
        labels = parse(text, f"{model.name}: {metadata.labels}", repeated=True)
        return replace(facts, labels=labels, labels_from="its metadata")
    if model.labels:
        return replace(facts, labels=model.labels, labels_from="the zip")
    return facts


def _kind(
    model: ModelFile, options: ModelOptions, engine: Engine, shape: ModelShape
) -> tuple[Kind | None, str]:
    """Return the kind of the output and its source, None where nothing states it."""
    by_graph = kind_of_last_operator(read_network(model.content))
    if options.head:
        if by_graph and options.head not in (by_graph, "features"):
            raise UsageError(
                f"--head {options.head}: the last operator of {model.name} makes it {by_graph}; "
                "leave --head out"
            )
        return options.head, "--head"
    if by_graph:
        return by_graph, "its last operator"
    # Probabilities add up to 1 for any input, so any normalisation will do.
    grey: Colour = "grey" if shape.channels == 1 else "rgb"
    probe = Input(
        Geometry(shape.height, shape.width, "bilinear", "stretch", 1.0),
        Normalisation(grey, 127.5, (1.0,) * shape.channels, (1.0,) * shape.channels),
        engine.input,
    )
    rgb_or_grey = shape.channels in (1, 3)
    if rgb_or_grey and shape.outputs > 1 and sums_to_one(probe_outputs(engine, probe), engine):
        return "softmax", "its outputs are within 0..1 and add up to 1"
    return None, ""


def _missing(
    model: ModelFile, options: ModelOptions, facts: FileFacts, kind: Kind | None
) -> Iterator[MissingOption]:
    if kind != "features" and not (options.labels or facts.labels):
        yield MissingOption(
            "--labels", "a file with one class per line, in the order of the output", "FILE"
        )
    yield from missing_options(options.inputs, model.pipeline, facts.normalisation)
    if kind is None:
        yield MissingOption("--head", "softmax, logits, sigmoid, features: the output type", "KIND")


def _labels(
    model: ModelFile, options: ModelOptions, facts: FileFacts, kind: Kind, shape: ModelShape
) -> tuple[tuple[Label, ...], int, tuple[str, ...]]:
    """Return the labels, the number of outputs before the first, and lines to report."""
    if kind == "features":
        if options.labels:
            raise UsageError("--labels: features have no names; leave it out")
        return (), 0, ()
    stated = read_labels(options.labels, repeated=True) if options.labels else facts.labels
    source = str(options.labels) if options.labels else facts.labels_from
    labels = without_numbers(stated)
    offset = int(len(labels) == IMAGENET and shape.outputs == IMAGENET + 1)
    if len(labels) + offset != shape.outputs:
        raise UsageError(
            f"{model.name}: it has {counted(shape.outputs, 'output')}, and {source} has "
            f"{counted(len(labels), 'label')}: give one a line, in the order of the output"
        )
    notes = [f"{len(labels)} ({source})"]
    if labels != stated:
        notes.append("its numbers are left out")
    if offset:
        notes.append("output 0 is the background")
    return labels, offset, ("labels: " + ", ".join(notes),)


def _thresholds(options: ModelOptions, kind: Kind) -> tuple[float, ...]:
    if options.threshold is None:
        return ()
    if kind != "sigmoid":
        raise UsageError(
            f"--threshold: is for sigmoid outputs, and this one is {kind}; leave it out"
        )
    return (options.threshold,)


def _input(
    model: ModelFile, options: ModelOptions, engine: Engine, shape: ModelShape, facts: FileFacts
) -> Input:
    sides = (shape.height, shape.width, shape.channels)
    spec = resolve_input(options.inputs, *sides, model.pipeline, normalisation=facts.normalisation)
    if replace(engine.input, layout=BYTES.layout) == BYTES and not _is_raw(spec.normalisation):
        raise UsageError(
            f"{model.name}: takes bytes, uint8 without a scale, and normalises them itself: "
            "give --normalisation raw, or leave it out"
        )
    return replace(spec, tensor=engine.input)


def _is_raw(normalisation: Normalisation) -> bool:
    """Return whether bytes stay as they are."""
    parts = normalisation.divisor, {*normalisation.mean}, {*normalisation.std}
    return parts == (1.0, {0.0}, {1.0})


def _input_source(model: ModelFile, options: ModelOptions, facts: FileFacts) -> str:
    """Return the sources of geometry and normalisation."""
    from_file = (
        facts.normalisation_from if facts.normalisation and not options.inputs.normalisation else ""
    )
    origin = model.origin if model.pipeline and not options.inputs.preprocess else ""
    typed = replace(options.inputs, normalisation=None).options()
    return "; ".join(filter(None, (origin, typed, from_file)))


def _provenance(model: ModelFile) -> Provenance:
    return Provenance(
        source=Path(model.name).name,
        weights_digest=digest(model.content.data).decode(),
        precision="unknown",
        target=f"{model.content.format}:unknown",
        tools=identity()["packages"],
    )


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
