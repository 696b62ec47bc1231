"""Load the source of a conversion: a Keras model, and all that its contract needs."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from kedge_convert import asking
from kedge_convert.batching import batch_size, batches
from kedge_convert.load import input_stage, output_activation, registry
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.settle import labelled, settle_input
from kedge_models import cards
from kedge_models.cards import Card, card
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Input, Label, Output
from kedge_runtime.artefact.kinds import Activation, Kind
from kedge_runtime.errors import UsageError
from kedge_runtime.image.pipelines import NORMALISATIONS

_TRACED: WeakSet[Any] = WeakSet()  # models that have run a whole batch


@dataclass(frozen=True)
class Source:
    """A Keras model from images to logits, mostly. `model` takes float32 [n, h, w, channels].

    `output`: the kind of its numbers, without their tensor. `head`: the output type of the user's
    model. `told`: whether the layers or the user settle it (output_activation.check_answers).
    `chosen`, `signature`: the output and signature that the user asked for, empty without.
    `notes`: lines for the user. `images`: a few on which an export is tried (noise where there are
    none).
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
    notes: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()

    @property
    def activation(self) -> Activation:
        """The function that turns its logits into probabilities."""
        return self.output.activation

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return int(self.model.count_params())

    def logits(self, tensors: Iterator[NDArray[Any]]) -> Floats:
        """Return the float model's numbers, [images, classes], for tensors of [1, h, w, channels].

        Feature maps are flattened, as the runtime does.
        """
        size = batch_size(self.model)
        rows = [self._numbers(batch, size) for batch in batches(tensors, size)]
        numbers = np.concatenate(rows).astype(np.float32)
        return numbers.reshape(len(numbers), -1)

    def _numbers(self, batch: NDArray[Any], size: int) -> NDArray[Any]:
        """Return the numbers of a batch: with a trace for `size`, or of few images without any."""
        if len(batch) == size:
            _TRACED.add(self.model)
        if self.model not in _TRACED:
            return np.asarray(self.model(batch, training=False))
        filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
        numbers: NDArray[Any] = self.model.predict_on_batch(filled)
        return numbers[: len(batch)]


def load_source(request: SourceRequest) -> Source:
    """Load the model and settle its contract's input, output and labels.

    Raises UsageError when the model can't be read or is no image classifier. Facts that the
    contract needs and that nothing tells are asked for in one UsageError.
    """
    asking.refuse_idle(request)
    loaded = _with_card(registry.load(request), request)
    with registry.about(loaded.name):
        model = input_stage.as_image(loaded.model, request.size)
        output_activation.check_input(model)
        model = input_stage.fixed(model, request.size)
        head = output_activation.find(model, request.head)
    settled, labels = settle_input(request, loaded, model), labelled(request, loaded, head)
    asking.refuse(request, (*settled.missing, *labels.missing))
    return Source(
        name=loaded.name,
        model=head.model,
        input=settled.input,
        output=replace(head.output, label_offset=labels.offset),
        labels=labels.labels,
        weights_digest=digest(loaded.model),
        head=head.kind,
        told=head.certain,
        chosen=request.output or "",
        signature=request.signature or "",
        card=loaded.facts.card,
        notes=(f"head: {head}", settled.line, *loaded.notes, *labels.notes),
    )


def _with_card(loaded: LoadedModel, request: SourceRequest) -> LoadedModel:
    """Return a file's model with the facts of `--card`."""
    if request.card is None:
        return loaded
    asked = card(request.card)
    if request.pixels.normalisation is None:
        _refuse_other_card(loaded.name, loaded.model, asked)
        _refuse_card_of_bytes(loaded, asked)
    return replace(loaded, facts=SourceFacts.of(asked))


def _refuse_other_card(name: str, model: Any, asked: Card) -> None:
    """Raise UsageError when the model has exactly another application's number of weights.

    The float model would get wrong inputs too, so the parity check could not find it.
    """
    alike = [each for each in cards().values() if each.parameters == model.count_params()]
    if not alike or asked.normalisation in {each.normalisation for each in alike}:
        return
    raise UsageError(
        f"{name}: has the {alike[0].parameters} weights of {alike[0].name}, which uses other "
        f"preprocessing than --card {asked.name}: give --card {alike[0].name}, or --normalisation "
        "to override"
    )


def _refuse_card_of_bytes(loaded: LoadedModel, asked: Card) -> None:
    """Raise UsageError where a SavedModel takes uint8, and the card's model doesn't."""
    raw = NORMALISATIONS["raw"]
    if loaded.facts.normalisation == raw != asked.normaliser():
        raise UsageError(
            f"{loaded.name}: takes bytes, but --card {asked.name} normalises them: give "
            "--normalisation raw, or another to override"
        )


def digest(model: Any) -> str:
    """Return the SHA-256 of a Keras model's weights, their dtypes and shapes."""
    hasher = hashlib.sha256()
    for weight in model.get_weights():
        hasher.update(f"{weight.dtype}{weight.shape}".encode())
        hasher.update(np.ascontiguousarray(weight).tobytes())
    return f"sha256:{hasher.hexdigest()}"
