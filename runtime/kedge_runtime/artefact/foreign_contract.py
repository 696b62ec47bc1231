"""From a foreign file and what its user says to a contract: everything that is missing at once.

What the file itself tells is taken and said; a person's word goes first; nothing is guessed.
"""

import hashlib
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kedge_runtime.artefact.contract import (
    Colour,
    Contract,
    Geometry,
    Input,
    Kind,
    Label,
    Normalisation,
    Output,
    Provenance,
)
from kedge_runtime.artefact.file import ends_in_digest
from kedge_runtime.artefact.foreign import METADATA, ModelFile, has_archive, member_text
from kedge_runtime.artefact.labels import parse, read_labels, without_numbers
from kedge_runtime.artefact.output_kind import adds_up, last_kind, probed, refuse_other
from kedge_runtime.engines.base import BYTES, Engine
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.identity import identity
from kedge_runtime.image.pixels import Missing, PixelWords, asked, line, missing, settled
from kedge_runtime.modelfile import tflite_metadata
from kedge_runtime.modelfile.reading import read_network

LOST = "carries no kedge seal: cut short (copy it again), or not made by kedge: "
# The classes of ImageNet, before which TensorFlow's own models have the background.
IMAGENET = 1000


@dataclass(frozen=True)
class ForeignWords:
    """What a person says of a file that kedge didn't make; None where nothing was said."""

    pixels: PixelWords = field(default_factory=PixelWords)
    labels: Path | None = None
    head: Kind | None = None
    threshold: float | None = None

    @property
    def given(self) -> bool:
        """Whether anything was said; a threshold is said of any file."""
        return self.pixels.given or self.labels is not None or self.head is not None

    def options(self) -> str:
        """Return the options as they stand on a command line."""
        labels = f"--labels {shlex.quote(str(self.labels))}" if self.labels else ""
        head = f"--head {self.head}" if self.head else ""
        threshold = "" if self.threshold is None else f"--threshold {self.threshold:g}"
        return " ".join(filter(None, (labels, self.pixels.options(), head, threshold)))


@dataclass(frozen=True)
class Told:
    """A contract, and a line for each thing that was taken, with the reason."""

    contract: Contract
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Ends:
    """The sides of a model's input in pixels, its channels, and the number of its outputs."""

    height: int
    width: int
    channels: int
    outputs: int


@dataclass(frozen=True)
class Own:
    """What the file tells of itself, and by what."""

    normalisation: Normalisation | None = None
    why: str = ""
    labels: tuple[Label, ...] = ()
    labels_from: str = ""


def told(model: ModelFile, words: ForeignWords, engine: Engine, command: str) -> Told:
    """Return the contract of a foreign file that `engine` has loaded.

    `command`: what the user called, which the message on missing facts repeats in full. Raises one
    UsageError that lists all that is missing, or says what can't be.
    """
    ends = _ends(engine, model.name, words.head)
    own = _own(model, engine, ends, words.pixels)
    kind, why = _kind(model, words, engine, ends)
    if lacks := list(_lacks(model, words, own, kind)):
        whole = " ".join(
            filter(None, (command, words.options(), *(each.written for each in lacks)))
        )
        # Who said nothing may have meant a sealed file, which lost its end on the way.
        sealed = ends_in_digest(model.content.data)
        lost = "" if words.given or model.unpacked or sealed else LOST
        raise UsageError(f"{model.name}: {lost}{asked(lacks)}: {whole}")
    assert kind is not None
    labels, offset, named = _labels(model, words, own, kind, ends)
    spec = _input(model, words, engine, ends, own)
    output = Output(kind, engine.output, label_offset=offset, thresholds=_thresholds(words, kind))
    refuse_other(model.name, spec, engine, kind)
    said = (
        line(spec, _why(model, words, own)),
        f"output: {counted(ends.outputs, 'number')}, {kind} ({why})",
    )
    return Told(Contract(spec, output, labels, _provenance(model)), (*said, *named))


def _ends(engine: Engine, name: str, head: Kind | None) -> Ends:
    shape, layout = engine.input_shape, engine.input.layout
    sides = _sides(shape, layout)
    if sides is None or shape[0] != 1:
        raise UsageError(
            f"{name}: its input is {_shown(shape)}, no image; kedge feeds one image of 1 or 3 "
            "channels at a time"
        )
    if sides[:2] == (1, 1):
        raise UsageError(
            f"{name}: the size of its input is open ({_shown(shape)}): export it with a fixed "
            "height and width"
        )
    several = sum(side != 1 for side in engine.output_shape[1:]) > 1
    if several and head != "features":
        raise UsageError(
            f"{name}: its output is {_shown(engine.output_shape)}, no scores of classes; "
            "--head features takes it as numbers"
        )
    return Ends(*sides, math.prod(engine.output_shape))


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


def _own(model: ModelFile, engine: Engine, ends: Ends, words: PixelWords) -> Own:
    read = METADATA.get(model.content.format)
    metadata = read(model.content) if read else tflite_metadata.Metadata()
    own = Own(metadata.normalisation, (metadata.normalisation and "its metadata") or "")
    if engine.input.dtype == "uint8" and engine.input.quantisation:
        # Whatever else it says: programs put an image's bytes into a uint8 input as they are.
        found = engine.input.quantisation
        shift = (found.zero_point * found.scale,) * 3
        own = Own(Normalisation("rgb", 1 / found.scale, shift), "bytes as they are: uint8 input")
    if metadata.labels and has_archive(model.content):
        where = f"{model.name}: {metadata.labels}"
        text = member_text(model.content, metadata.labels)
        return replace(own, labels=parse(text, where, repeated=True), labels_from="its metadata")
    if model.labels:
        return replace(own, labels=model.labels, labels_from="the zip")
    return own


def _kind(
    model: ModelFile, words: ForeignWords, engine: Engine, ends: Ends
) -> tuple[Kind | None, str]:
    """Return what the output is and how that is known: None where nobody tells."""
    by_graph = last_kind(read_network(model.content))
    if words.head:
        if by_graph and words.head not in (by_graph, "features"):
            raise UsageError(
                f"--head {words.head}: the last operator of {model.name} makes it {by_graph}; "
                "leave --head out"
            )
        return words.head, "--head"
    if by_graph:
        return by_graph, "its last operator"
    # Of probabilities the sum is 1 whatever the input, so that any normalisation serves.
    grey: Colour = "grey" if ends.channels == 1 else "rgb"
    probe = Input(
        Geometry(ends.height, ends.width, "bilinear", "stretch", 1.0),
        Normalisation(grey, 127.5, (1.0,) * ends.channels, (1.0,) * ends.channels),
        engine.input,
    )
    if ends.channels in (1, 3) and ends.outputs > 1 and adds_up(probed(engine, probe), engine):
        return "softmax", "its answers are within 0..1 and add up to 1"
    return None, ""


def _lacks(model: ModelFile, words: ForeignWords, own: Own, kind: Kind | None) -> Iterator[Missing]:
    if kind != "features" and not (words.labels or own.labels):
        yield Missing("--labels", "a file with a class a line, in the order of the output", "FILE")
    yield from missing(words.pixels, model.pipeline, own.normalisation)
    if kind is None:
        yield Missing("--head", "softmax, logits, sigmoid, features: what its numbers are", "KIND")


def _labels(
    model: ModelFile, words: ForeignWords, own: Own, kind: Kind, ends: Ends
) -> tuple[tuple[Label, ...], int, tuple[str, ...]]:
    """Return the labels, the number of outputs before the first, and what is to be said."""
    if kind == "features":
        if words.labels:
            raise UsageError("--labels: features have no names; leave it out")
        return (), 0, ()
    given = read_labels(words.labels, repeated=True) if words.labels else own.labels
    source = str(words.labels) if words.labels else own.labels_from
    labels = without_numbers(given)
    offset = int(len(labels) == IMAGENET and ends.outputs == IMAGENET + 1)
    if len(labels) + offset != ends.outputs:
        raise UsageError(
            f"{model.name}: it has {counted(ends.outputs, 'output')}, and {source} has "
            f"{counted(len(labels), 'label')}: give one a line, in the order of the output"
        )
    notes = [f"{len(labels)} ({source})"]
    if labels != given:
        notes.append("its numbers are left out")
    if offset:
        notes.append("output 0 is the background")
    return labels, offset, ("labels: " + ", ".join(notes),)


def _thresholds(words: ForeignWords, kind: Kind) -> tuple[float, ...]:
    if words.threshold is None:
        return ()
    if kind != "sigmoid":
        raise UsageError(
            f"--threshold: is for sigmoid outputs, and this one is {kind}; leave it out"
        )
    return (words.threshold,)


def _input(model: ModelFile, words: ForeignWords, engine: Engine, ends: Ends, own: Own) -> Input:
    sides = (ends.height, ends.width, ends.channels)
    spec = settled(words.pixels, *sides, model.pipeline, normalisation=own.normalisation)
    if replace(engine.input, layout=BYTES.layout) == BYTES and not _is_raw(spec.normalisation):
        raise UsageError(
            f"{model.name}: takes bytes, uint8 without a scale, and normalises them itself: "
            "give --normalisation raw, or leave it out"
        )
    return replace(spec, tensor=engine.input)


def _is_raw(normalisation: Normalisation) -> bool:
    """Whether bytes stay as they are."""
    parts = normalisation.divisor, {*normalisation.mean}, {*normalisation.std}
    return parts == (1.0, {0.0}, {1.0})


def _why(model: ModelFile, words: ForeignWords, own: Own) -> str:
    """Return where geometry and normalisation come from."""
    from_file = own.why if own.normalisation and not words.pixels.normalisation else ""
    origin = model.origin if model.pipeline and not words.pixels.preprocess else ""
    said = replace(words.pixels, normalisation=None).options()
    return "; ".join(filter(None, (origin, said, from_file)))


def _provenance(model: ModelFile) -> Provenance:
    digest = hashlib.sha256(model.content.data).hexdigest()
    return Provenance(
        source=Path(model.name).name,
        weights_digest=f"sha256:{digest}",
        precision="unknown",
        target=f"{model.content.format}:unknown",
        tools=identity()["packages"],
    )


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
