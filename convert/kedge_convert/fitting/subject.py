"""Load the model of `kedge fit-input`, and compare its batch norms with images.

A conversion's model is compared with every known preprocessing (`kedge_runtime.fitting`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.batching import batch_size
from kedge_convert.load import input_stage, output_activation, registry
from kedge_convert.load.output_activation import Head
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.program import answering
from kedge_convert.settle import Labelling, SettledInput, labelled, settle_input
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_models.cards import card
from kedge_runtime.arrays import Doubles, Pixels
from kedge_runtime.artefact.contract import Input, Output
from kedge_runtime.errors import UsageError
from kedge_runtime.fitting import scores
from kedge_runtime.fitting.scores import InputFinding, evidence
from kedge_runtime.image.preprocessing import Preprocessor


@dataclass(frozen=True)
class Subject:
    """Hold a Keras model from images to the outputs that `output` describes.

    `height`, `width`, `channels`: of its input; `labelling`: the names of its classes;
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

    def evidence(self, pixels: Pixels, spec: Input) -> Doubles:
        """Return the answers to images of its size, uint8 [n, h, w, c], as `scores.evidence`."""
        (values,) = outputs(self.model, pixels, spec)
        return evidence(values, self.output)


def outputs(model: Any, pixels: Pixels, spec: Input) -> list[NDArray[Any]]:
    """Return all outputs of a model for images of its size, normalised by `spec`."""
    preprocessor, size = Preprocessor(spec), batch_size(model)
    rows = []
    for start in range(0, len(pixels), size):
        batch = np.concatenate([preprocessor.look_up(one) for one in pixels[start : start + size]])
        values = model.predict_on_batch(batch)
        rows.append(values if isinstance(values, list) else [values])
    return [np.concatenate(each) for each in zip(*rows, strict=True)]


def open_subject(request: SourceRequest) -> Subject:
    """Load the model of a request, without a normalisation or geometry.

    Raises UsageError for an unreadable model and for a model of features.
    """
    return _subject(request, _opened(request))


def open_settled(request: SourceRequest) -> tuple[Subject, SettledInput]:
    """Do the same, and return what the model itself states of its input. Raises UsageError."""
    opened = _opened(request)
    return _subject(request, opened), settle_input(request, opened.loaded, opened.model)


@dataclass(frozen=True)
class _Opened:
    loaded: LoadedModel
    model: Any
    head: Head


def _opened(request: SourceRequest) -> _Opened:
    found = registry.load(request)
    with registry.about(found.name):
        model = input_stage.as_image(found.model, request.size)
        output_activation.check_input(model)
        model = input_stage.fixed(model, request.size)
        head = output_activation.find(model, request.head)
    if head.kind == "features":
        raise UsageError(
            f"{found.name}: returns features, but fit-input compares classes; give the model with "
            "its last layers"
        )
    if request.card:
        found = replace(found, facts=SourceFacts.of(card(request.card)))
    return _Opened(found, model, head)


def _subject(request: SourceRequest, opened: _Opened) -> Subject:
    found, head = opened.loaded, opened.head
    height, width, channels = opened.model.inputs[0].shape[1:]
    named, own = labelled(request, found, head), input_stage.normalises(found.model)
    output = replace(head.output, label_offset=named.offset)
    return Subject(found.name, head.model, output, height, width, channels, named, own)


FIRST = 4  # the norms next to the images suffice, and are fast


@dataclass(frozen=True)
class Norms:
    """Hold the first batch norms of a net that were trained, or all.

    `model`: returns, for each of them, the mean and the mean square of its input over an image,
    [images, channels], in learned standard deviations from the learned mean. `floors`: what the
    norm's epsilon adds to the squares, [channels].
    """

    model: Any
    floors: tuple[Doubles, ...]

    def divergence(self, moments: list[NDArray[Any]]) -> Doubles:
        """Return the distance of each image from the learned statistics, [images], in nats.

        Its mean is the Kullback-Leibler divergence of a channel's normal distribution over all
        images from the learned one, averaged over the channels of each norm, summed over norms.
        """
        pairs = zip(moments[::2], moments[1::2], self.floors, strict=True)
        return np.asarray(np.sum([_divergence(*each) for each in pairs], axis=0))


def norms_of(model: Any, most: int | None = FIRST) -> Norms | None:
    """Return the first `most` trained batch norms of a Keras model (None: all), or None.

    A frozen one has the statistics of other images, maybe with another preprocessing.
    """
    keras = require("keras")
    calls = [
        (node.operation, node.input_tensors[0])
        for node in _nodes(model)
        if isinstance(node.operation, keras.layers.BatchNormalization) and node.operation.trainable
    ]
    called = [layer for layer, _ in calls]
    # A layer that is called twice has one mean for two inputs.
    found = [each for each in calls if called.count(each[0]) == 1][:most]
    if not found:
        return None
    moments = [each for layer, tensor in found for each in _moments(keras, layer, tensor)]
    return Norms(keras.Model(model.inputs, moments), tuple(_floor(layer) for layer, _ in found))


def _nodes(model: Any) -> list[Any]:
    """Return the calls of a Keras model's layers, those next to the images first."""
    by_depth = getattr(getattr(model, "_functional", model), "_nodes_by_depth", {})
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _moments(keras: Any, layer: Any, tensor: Any) -> tuple[Any, Any]:
    axis = layer.axis % len(tensor.shape)
    others = [each for each in range(1, len(tensor.shape)) if each != axis]
    shape = [1] * len(tensor.shape)
    shape[axis] = -1
    mean, variance = (
        keras.ops.reshape(each, shape) for each in (layer.moving_mean, layer.moving_variance)
    )
    steps = (tensor - mean) / keras.ops.sqrt(variance + layer.epsilon)
    return keras.ops.mean(steps, others), keras.ops.mean(keras.ops.square(steps), others)


def _floor(layer: Any) -> Doubles:
    variance = np.asarray(layer.moving_variance, np.float64)
    return np.asarray(layer.epsilon / (variance + layer.epsilon))


def _divergence(means: NDArray[Any], squares: NDArray[Any], floor: Doubles) -> Doubles:
    squared = squares.astype(np.float64) + floor
    variance = squared.mean(axis=0) - means.mean(axis=0, dtype=np.float64) ** 2
    variance = np.maximum(variance, floor)
    return np.asarray((squared - 1 - np.log(variance)).mean(axis=1) / 2)


def true_outputs(paths: Sequence[Path], source: Source) -> list[int] | None:
    """Return the index of each image's true output; None without ground truth for all."""
    return scores.true_outputs(paths, source.labels, source.output)


def better_input(
    source: Source,
    paths: Sequence[Path],
    classes: Sequence[int] | None,
    logits: NDArray[Any] | None = None,
) -> InputFinding | None:
    """Return the known preprocessing that fits significantly better than the source's, or None.

    `logits`: the float model's on the images, [images, classes], where it was asked.
    """
    model = scores.TestedModel(
        source.name,
        source.input,
        source.output,
        lambda pixels, spec: evidence(
            answering.logits(source, map(Preprocessor(spec).look_up, pixels)), source.output
        ),
    )
    known = None if logits is None else evidence(logits, source.output)
    return scores.better_input(model, paths, classes, known)
