"""Choose the range of each LeakyReLU's input by what int8 does to the answers.

The slope makes the negative side small, so the range may cut off some of it: the rest gets finer
steps. A tensor's error e moves the divergence of the answers by (g e)^2 / 2, to second order, where
g is the gradient of log-probabilities, drawn at random with the Fisher information as its
covariance: one backward pass. What a range clips counts as it is, summed over an image. Rounding
errors are independent: each has a twelfth of the step's square.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kedge_convert.export.exported import Range, Ranges
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor
from kedge_convert.prepare.pairs import slopes
from kedge_convert.prepare.running import sizes
from kedge_convert.prepare.steps import STEPS
from kedge_convert.quantise.naming import tensor_names
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Doubles, Floats
from kedge_runtime.output import quiet

# The lower end of a range is tried as so many equal shares of the least value.
BINS = 20
SHARES = np.arange(BINS, 1, -1) / BINS
# Other images have values beyond these, and tensors are clipped on the same images.
CLIPPED = 4.0
ANSWERING = 96  # images; their tails set the ends
TAPED = 32_000_000  # values at once: the backward pass holds each of them twice

# Logits -> a random combination of each image's, whose gradient has the covariance above.
Draw = Callable[[Any, np.random.Generator], Any]


@dataclass
class Pull:
    """How a tensor moves the answers: by image where its lower end is clipped at SHARES, by steps.

    `below`: [images, shares]; `power`: sum of squared gradients.
    """

    below: list[Doubles] = field(default_factory=list)
    power: float = 0.0


def program_ranges(source: Source, content: bytes, images: ImageSplit, ends: Ranges) -> Ranges:
    """Return the ranges of the LeakyReLUs' inputs in a float TFLite program, by tensors' names.

    `ends`: of all values of every tensor. Elsewhere a range that clips was worse on other images:
    an outlier in three hundred costs more than finer steps bring.
    """
    graph = preparation.plan(source.model)
    if not leaky_inputs(graph):
        return {}
    inputs = np.concatenate(list(tensors(images.preparation[:ANSWERING], source.input)))
    names = tensor_names(graph, STATIC["tflite"], content, inputs[:1]).names
    known = {each: ends[min(names[each])] for each in leaky_inputs(graph) if names[each]}
    draw = sigmoid_draw if source.output.multi_label else softmax_draw
    with quiet():
        found = answer_ranges(graph, inputs, draw, known)
    return {name: one for tensor, one in found.items() for name in names[tensor]}


def leaky_inputs(graph: Graph) -> list[GraphTensor]:
    """Return the inputs of all LeakyReLUs and PReLUs but the network's own input."""
    found = dict.fromkeys(node.inputs[0] for node in graph.nodes if slopes(node) is not None)
    return [tensor for tensor in found if tensor != graph.input]


def softmax_draw(logits: Any, rng: np.random.Generator) -> Any:
    """Return a combination with the covariance diag(p) - p p'."""
    ops = require("keras").ops
    shares = ops.softmax(logits)
    signs = ops.sqrt(shares) * _signs(logits, rng)
    factors = signs - shares * ops.sum(signs, axis=-1, keepdims=True)
    return ops.sum(ops.stop_gradient(factors) * logits)


def sigmoid_draw(logits: Any, rng: np.random.Generator) -> Any:
    """Return a combination with the covariance p (1 - p) of independent classes."""
    ops = require("keras").ops
    shares = ops.sigmoid(logits)
    factors = ops.sqrt(shares * (1 - shares)) * _signs(logits, rng)
    return ops.sum(ops.stop_gradient(factors) * logits)


def _signs(logits: Any, rng: np.random.Generator) -> Floats:
    return rng.choice(np.array([-1, 1], np.float32), tuple(logits.shape))


def answer_ranges(
    graph: Graph, images: Floats, draw: Draw, ends: Mapping[GraphTensor, Range], seed: int = 0
) -> dict[GraphTensor, Range]:
    """Return the range of every tensor of `ends`, which are of all values.

    `images`: float32 [n, h, w, 3].
    """
    pulls = {tensor: Pull() for tensor in ends}
    for values, gradients in _backward(graph, images, draw, list(ends), seed):
        for tensor, gradient in gradients.items():
            _add(pulls[tensor], np.asarray(values[tensor]), gradient, ends[tensor].low)
    return {tensor: _cheapest(pull, ends[tensor]) for tensor, pull in pulls.items()}


def _backward(
    graph: Graph, images: Floats, draw: Draw, wanted: list[GraphTensor], seed: int
) -> Iterator[tuple[Mapping[GraphTensor, Any], dict[GraphTensor, Floats]]]:
    """Yield every tensor's values and the gradients of some, a chunk of images at a time."""
    tf, rng = require("tensorflow"), np.random.default_rng(seed)
    taped = max(1, TAPED // sum(sizes(graph).values()))
    for at in range(0, len(images), taped):
        values: dict[GraphTensor, Any] = {graph.input: tf.constant(images[at : at + taped])}
        with tf.GradientTape() as tape:
            tape.watch(values[graph.input])
            for node in graph.nodes:
                values[node.output] = node.run(values.__getitem__)
            answer = draw(values[graph.output], rng)
        found = tape.gradient(answer, [values[each] for each in wanted])
        pairs = zip(wanted, found, strict=True)
        yield values, {tensor: np.asarray(each) for tensor, each in pairs if each is not None}


def _add(pull: Pull, value: Floats, gradient: Floats, low: float) -> None:
    value, gradient = (each.reshape(len(each), -1) for each in (value, gradient))
    pull.below.extend(_clipped(-value, -gradient, -low))
    # Zero is held exactly.
    pull.power += float(np.square(gradient[value != 0]).sum(dtype=np.float64))


def _clipped(value: Floats, gradient: Floats, end: float) -> Iterator[Doubles]:
    """Yield how each image's answers move by what lies beyond each share of the end, [shares].

    With values in bins as wide as the shares' distance, what lies beyond a share is in whole bins.
    """
    if end <= 0:
        yield from np.zeros((len(value), len(SHARES)))
        return
    for own, pulls in zip(value, gradient, strict=True):
        beyond = np.flatnonzero(own > end * SHARES[-1])
        own, pulls = own[beyond], pulls[beyond]
        bins = np.minimum((own * (BINS / end)).astype(np.intp), BINS)
        sums, moments = (
            np.bincount(bins, weights, BINS + 1)[::-1].cumsum()[: len(SHARES)]
            for weights in (pulls, pulls * own)
        )
        yield moments - end * SHARES * sums


def _cheapest(pull: Pull, ends: Range) -> Range:
    if not pull.below:  # the answers don't depend on it
        return ends
    step = (ends.high - ends.low * SHARES) / STEPS
    moved = np.square(np.stack(pull.below)).mean(axis=0)
    costs = CLIPPED * moved + step**2 / 12 * (pull.power / len(pull.below))
    return Range.over(ends.low * float(SHARES[costs.argmin()]), ends.high)
