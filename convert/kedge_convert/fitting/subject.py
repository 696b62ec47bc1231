"""The model whose training input is sought: loaded, with everything but that input settled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert import heads, sources
from kedge_convert.sources import Request, shapes
from kedge_convert.sources import channels as channels_of
from kedge_models import card, imagenet, read_labels, without_numbers
from kedge_runtime.contract import Input, Label, Output
from kedge_runtime.errors import UsageError
from kedge_runtime.fitting.scores import Numbers, evidence
from kedge_runtime.image import Pixels
from kedge_runtime.preprocessing import Preprocessor

BATCH = 16


@dataclass(frozen=True)
class Subject:
    """A Keras model from images to the numbers that `output` tells of.

    `height`, `width`, `channels`: of its input. `labels`: of its classes, None where nobody named
    them. `normaliser`: the operations by which it normalises bytes itself, or None.
    """

    name: str
    model: Any
    output: Output
    height: int
    width: int
    channels: int
    labels: tuple[Label, ...] | None = None
    normaliser: str | None = None

    @property
    def classes(self) -> int:
        """The number of outputs."""
        return int(self.model.outputs[0].shape[-1])

    def evidence(self, pixels: Pixels, fed: Input) -> Numbers:
        """Return the answers to images of its size, uint8 [n, h, w, c], as `scores.evidence`."""
        return answers(self.model, self.output, pixels, fed)


def answers(model: Any, output: Output, pixels: Pixels, fed: Input) -> Numbers:
    """Return what a model answers to images of its size, normalised as `fed` says."""
    plan, size = Preprocessor(fed), model.inputs[0].shape[0] or BATCH
    rows = []
    for start in range(0, len(pixels), size):
        batch = np.concatenate([plan.look_up(one) for one in pixels[start : start + size]])
        rows.append(np.asarray(model.predict_on_batch(batch)))
    return evidence(np.concatenate(rows), output)


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
    labels = _labels(request, found.facts.labels, head.model.outputs[0].shape[-1], found.name)
    own = shapes.normalises(found.model)
    return Subject(found.name, head.model, head.output, height, width, channels, labels, own)


def _labels(
    request: Request, known: tuple[Label, ...] | None, outputs: int, name: str
) -> tuple[Label, ...] | None:
    """Return the names of the outputs by the user, a card or the model, None where none tells."""
    if request.labels == "imagenet":
        known = imagenet()
    elif request.labels:
        known = without_numbers(read_labels(Path(request.labels)))
    elif request.card:
        known = card(request.card).label_list()
    if known is None or len(known) == outputs:
        return known
    if outputs == len(known) + 1 and known == imagenet():
        return (Label("background", "background"), *known)
    if request.labels is None and request.card is None:
        return None
    raise UsageError(
        f"{name}: it has {outputs} classes, but there are {len(known)} labels: give --labels FILE "
        f"with {outputs} lines"
    )


def by_folders(paths: Sequence[Path], classes: int) -> tuple[Label, ...] | None:
    """Return the folders' names in alphabetical order, as Keras numbers them, if their number is
    that of the classes.
    """
    names = sorted({path.parent.name for path in paths})
    return tuple(Label(name, name) for name in names) if len(names) == classes else None
