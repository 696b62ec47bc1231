"""The model whose training input is sought: loaded, with everything but that input settled."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert import heads, sources
from kedge_convert.labelling import Labelling, labelled
from kedge_convert.sources import Facts, Request, shapes
from kedge_convert.sources import channels as channels_of
from kedge_models import card
from kedge_runtime.contract import Input, Output
from kedge_runtime.errors import UsageError
from kedge_runtime.fitting.scores import Numbers, evidence
from kedge_runtime.image import Pixels
from kedge_runtime.preprocessing import Preprocessor

BATCH = 8  # no slower than larger ones, and each other size costs a trace


@dataclass(frozen=True)
class Subject:
    """A Keras model from images to the numbers that `output` tells of.

    `height`, `width`, `channels`: of its input. `labelling`: the names of its classes.
    `normaliser`: the operations by which it normalises bytes itself, or None.
    """

    name: str
    model: Any
    output: Output
    height: int
    width: int
    channels: int
    labelling: Labelling
    normaliser: str | None = None

    def evidence(self, pixels: Pixels, fed: Input) -> Numbers:
        """Return the answers to images of its size, uint8 [n, h, w, c], as `scores.evidence`."""
        return answers(self.model, self.output, pixels, fed)


def answers(model: Any, output: Output, pixels: Pixels, fed: Input) -> Numbers:
    """Return what a model answers to images of its size, normalised as `fed` says."""
    (given,) = outputs(model, pixels, fed)
    return evidence(given, output)


def outputs(model: Any, pixels: Pixels, fed: Input) -> list[NDArray[Any]]:
    """Return all outputs of a model for images of its size, normalised as `fed` says."""
    plan, size = Preprocessor(fed), model.inputs[0].shape[0] or BATCH
    rows = []
    for start in range(0, len(pixels), size):
        batch = np.concatenate([plan.look_up(one) for one in pixels[start : start + size]])
        given = model.predict_on_batch(batch)
        rows.append(given if isinstance(given, list) else [given])
    return [np.concatenate(each) for each in zip(*rows, strict=True)]


def open_subject(request: Request) -> Subject:
    """Load the model of a request; its normalisation and geometry stay open.

    Raises UsageError when it can't be read or gives no classes.
    """
    found = sources.load(request)
    model = channels_of.as_image(found.model, request.size, found.name)
    heads.check_input(model, found.name)
    model = shapes.fixed(model, request.size, found.name)
    head = heads.find(model, found.name, request.head)
    if head.kind == "features":
        raise UsageError(
            f"{found.name}: gives features, which are neither right nor wrong: give the model with "
            "its last layers"
        )
    height, width, channels = model.inputs[0].shape[1:]
    if request.card:
        found = replace(found, facts=Facts.of(card(request.card)))
    named, own = labelled(request, found, head), shapes.normalises(found.model)
    output = replace(head.output, label_offset=named.offset)
    return Subject(found.name, head.model, output, height, width, channels, named, own)
