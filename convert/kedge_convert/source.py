"""What is converted: a Keras model from pictures to numbers, and all that its contract needs."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert import asking
from kedge_convert.load import input_stage, inputs, output_activation, registry
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.settle import fed, labelled
from kedge_models import cards
from kedge_models.cards import Card, card
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Activation, Input, Kind, Label, Output
from kedge_runtime.errors import UsageError
from kedge_runtime.image.pipelines import NORMALISATIONS

BATCH = 16


@dataclass(frozen=True)
class Source:
    """A Keras model from images to logits, mostly. `model` takes float32 [n, h, w, channels].

    `output`: what its numbers are, without their tensor. `head`: what the user's model ended in.
    `told`: the layers or the user leave no doubt of it (heads.check_answers).
    `chosen`, `signature`: the output and signature that the user asked for, empty without.
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
    chosen: str = ""
    signature: str = ""
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
        """Return the float model's numbers, [images, classes], for tensors of [1, h, w, channels].

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


def load_source(request: SourceRequest) -> Source:
    """Load the model and settle its contract's input, output and labels.

    Raises UsageError when the model can't be read, is no image classifier, or, once for all of
    them, for the facts that its contract needs and that are neither given nor known.
    """
    asking.refuse_idle(request)
    found = _with_card(registry.load(request), request)
    with registry.about(found.name):
        model = inputs.as_image(found.model, request.size)
        output_activation.check_input(model)
        model = input_stage.fixed(model, request.size)
        head = output_activation.find(model, request.head)
    feeding, named = fed(request, found, model), labelled(request, found, head)
    asking.refuse(request, (*feeding.missing, *named.missing))
    return Source(
        name=found.name,
        model=head.model,
        input=feeding.input,
        output=replace(head.output, label_offset=named.offset),
        labels=named.labels,
        weights_digest=digest(found.model),
        head=head.kind,
        told=head.certain,
        chosen=request.output or "",
        signature=request.signature or "",
        card=found.facts.card,
        notes=(f"head: {head}", feeding.line, *found.notes, *named.notes),
    )


def _with_card(found: LoadedModel, request: SourceRequest) -> LoadedModel:
    """Return a file's model with what `--card` knows of it."""
    if request.card is None:
        return found
    asked = card(request.card)
    if request.pixels.normalisation is None:
        _refuse_other_card(found.name, found.model, asked)
        _refuse_card_of_bytes(found, asked)
    return replace(found, facts=SourceFacts.of(asked))


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


def _refuse_card_of_bytes(found: LoadedModel, asked: Card) -> None:
    """Raise UsageError where a SavedModel takes uint8, and the card's model doesn't."""
    raw = NORMALISATIONS["raw"]
    if found.facts.normalisation == raw != asked.normaliser():
        raise UsageError(
            f"{found.name}: takes bytes, but --card {asked.name} normalises them: give "
            "--normalisation raw, or another to insist"
        )


def digest(model: Any) -> str:
    """Return the SHA-256 of a Keras model's weights, their dtypes and shapes."""
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(f"{weight.dtype}{weight.shape}".encode())
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return f"sha256:{hasher.hexdigest()}"
