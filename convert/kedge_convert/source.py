"""What is converted: a Keras model from pictures to numbers, and all that its contract needs."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert import heads, sources
from kedge_convert.sources import Facts, Found, Request, resizing, shapes, zoo
from kedge_models import NORMALISATIONS, Card, card, cards, imagenet, read_labels, without_numbers
from kedge_runtime.contract import Activation, Geometry, Input, Kind, Label, Normalisation, Output
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.head import Floats

__all__ = ["Facts", "Request", "Source", "digest", "load_source"]

BATCH = 16

Labels = tuple[tuple[Label, ...], int, tuple[str, ...]]


@dataclass(frozen=True)
class Source:
    """A Keras model from pictures to logits, mostly. `model` takes float32 [n, h, w, 3].

    `output`: what its numbers are, without their tensor. `head`: what the user's model ended in.
    `told`: the layers or the user leave no doubt of it (heads.check_answers).
    `untrained`: its weights are random ones. `notes`: what the user should know, a line each.
    `pictures`: a few real ones, on which an export is tried (noise where there are none).
    """

    name: str
    model: Any
    input: Input
    output: Output
    labels: tuple[Label, ...]
    weights_digest: str
    head: Kind = "logits"
    told: bool = True
    card: str = ""
    untrained: bool = False
    notes: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = ()

    @property
    def activation(self) -> Activation:
        """What turns its logits into probabilities."""
        return self.output.activation

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return int(self.model.count_params())

    def logits(self, tensors: Iterator[NDArray[Any]]) -> Floats:
        """Return the float original's numbers, [images, classes], for tensors of [1, h, w, 3].

        Feature maps are flattened, as the runtime does.
        """
        size = self.model.inputs[0].shape[0] or BATCH
        rows = [self.model.predict_on_batch(batch) for batch in _batches(tensors, size)]
        numbers = np.concatenate(rows).astype(np.float32)
        return numbers.reshape(len(numbers), -1)


def _batches(tensors: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    rest = iter(tensors)
    while batch := list(islice(rest, size)):
        yield np.concatenate(batch)


def load_source(request: Request) -> Source:
    """Load the model and settle its contract's input, output and labels.

    Raises UsageError when the model can't be read, is no image classifier, or when a fact that its
    contract needs is neither given nor known.
    """
    _refuse_idle_options(request)
    found = _with_card(sources.load(request), request)
    heads.check_input(found.model, found.name)
    model = shapes.fixed(found.model, request.size, found.name)
    head = heads.find(model, found.name, request.head)
    normalisation, notes = _normalisation(request, found)
    height, width = model.inputs[0].shape[1:3]
    geometry, fitted = _geometry(request, found)
    labels, offset, read = _labels(request, found, head)
    return Source(
        name=found.name,
        model=head.model,
        input=Input(replace(geometry, height=height, width=width), normalisation),
        output=replace(head.output, label_offset=offset),
        labels=labels,
        weights_digest=digest(found.model),
        head=head.kind,
        told=head.told,
        card=found.facts.card,
        untrained=request.weights == zoo.UNTRAINED,
        notes=(f"head: {head}", *found.notes, *notes, *fitted, *read),
    )


def _with_card(found: Found, request: Request) -> Found:
    """Return a file's model with what `--card` knows of it."""
    if request.card is None:
        return found
    asked = card(request.card)
    if request.normalisation is None:
        _refuse_other_card(found.name, found.model, asked)
        _refuse_card_of_bytes(found, asked)
    return replace(found, facts=Facts.of(asked))


def _refuse_other_card(name: str, model: Any, asked: Card) -> None:
    """Raise UsageError when the model has exactly another application's number of weights.

    The float original would be fed wrongly too, so that the parity check could not tell.
    """
    alike = [each for each in cards().values() if each.parameters == model.count_params()]
    if not alike or asked.normalisation in {each.normalisation for each in alike}:
        return
    raise UsageError(
        f"{name}: has the {alike[0].parameters} weights of {alike[0].name}, which is fed otherwise "
        f"than --card {asked.name}: give --card {alike[0].name}, or --normalisation to insist"
    )


def _refuse_card_of_bytes(found: Found, asked: Card) -> None:
    """Raise UsageError where a SavedModel takes uint8, and the card's model doesn't."""
    raw = NORMALISATIONS["raw"]
    if found.facts.normalisation == raw != asked.normaliser():
        raise UsageError(
            f"{found.name}: takes bytes, but --card {asked.name} normalises them: give "
            "--normalisation raw, or another to insist"
        )


def _refuse_idle_options(request: Request) -> None:
    """Raise UsageError for an option that would change nothing: the user expects that it does."""
    is_path = sources.is_path(request.model)
    if request.card and not is_path:
        raise UsageError(f"--card {request.card}: {request.model} is its own card; leave it out")
    if request.weights != Request.weights and not sources.takes_weights(request.model):
        raise UsageError(f"--weights: {request.model} has its own weights; name a card instead")


def _geometry(request: Request, found: Found) -> tuple[Geometry, tuple[str, ...]]:
    """Return how a picture gets the input's size, and what is to be said of it."""
    known = found.facts.geometry
    if request.preprocess == "card":
        # A card, or the user's own size, goes before what the model would do by itself.
        told = found.facts.card or request.size
        layer = None if told else resizing.leading(found.model, found.name)
        if layer is None:
            return known, ()
        own = resizing.geometry(layer, found.name)
        return own, (resizing.word(own, layer),)
    # What keras.utils.load_img does: no EXIF, no crop, Pillow's nearest.
    return replace(
        known,
        resize="nearest",
        fit="stretch",
        orientation="ignore",
        scaled_decode=False,
    ), ()


def _normalisation(request: Request, found: Found) -> tuple[Normalisation, tuple[str, ...]]:
    """Return how bytes become the model's input, and what is to be said of it."""
    name, known = found.name, found.facts.normalisation
    inner = shapes.normalises(found.model)
    if request.normalisation is not None:
        return NORMALISATIONS[request.normalisation], ()
    if known is None and inner is None:
        modes = ", ".join(NORMALISATIONS)
        raise UsageError(
            f"{name}: how its pixels are normalised isn't known: give --card NAME (the "
            f"application it was built from; `kedge models` lists them) or --normalisation {modes} "
            "(raw where the model normalises them itself)"
        )
    if known is None:
        note = f"normalisation: raw, as the model begins with its own ({inner})"
        return NORMALISATIONS["raw"], (note,)
    if inner is not None and known != NORMALISATIONS["raw"]:
        raise UsageError(
            f"{name}: begins with its own normalisation ({inner}), but --card {found.facts.card} "
            "has one too: give --normalisation raw, or another to insist"
        )
    return known, ()


def _labels(request: Request, found: Found, head: heads.Head) -> Labels:
    """Return the classes, the number of outputs before the first, and what is to be said."""
    name, outputs = found.name, head.model.outputs[0].shape[-1]
    if head.kind == "features":
        if request.labels:
            raise UsageError(f"--labels: {name} gives features, which have no names; leave it out")
        return (), 0, ()
    known, notes = _named(request, found)
    if known is None:
        raise UsageError(
            f"{name}: its {outputs} classes have no names: give --labels FILE|imagenet, "
            "or --head features where they are none"
        )
    # TensorFlow's own ImageNet models: output 0 is the background, and has no label.
    if outputs == len(known) + 1 and known == imagenet():
        return known, 1, notes
    if len(known) != outputs:
        raise _miscounted(request, name, outputs, len(known))
    return known, 0, notes


def _named(request: Request, found: Found) -> tuple[tuple[Label, ...] | None, tuple[str, ...]]:
    """Return the labels that the user or the card gives, and what is to be said of them."""
    if request.labels == "imagenet":
        return imagenet(), ()
    if not request.labels:
        return found.facts.labels, ()
    given = read_labels(Path(request.labels))
    names = without_numbers(given)
    if names == given:
        return given, ()
    return names, (f"labels: {request.labels} numbers its lines; the numbers are left out",)


def _miscounted(request: Request, name: str, outputs: int, count: int) -> UsageError:
    if request.labels in (None, "imagenet"):
        return UsageError(
            f"{name}: it has {outputs} classes, but there are {count} labels: "
            f"give --labels FILE with {outputs} lines"
        )
    return UsageError(
        f"{name}: it has {outputs} classes, but {request.labels} has {counted(count, 'line')}: "
        "a label file has one class a line, in the order of the output"
    )


def digest(model: Any) -> str:
    """Return the SHA-256 of a Keras model's weights, their dtypes and shapes."""
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(f"{weight.dtype}{weight.shape}".encode())
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return f"sha256:{hasher.hexdigest()}"
