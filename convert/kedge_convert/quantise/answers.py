"""Choose each activation's range by what int8 does to the answers, from one backward pass.

A tensor's error e moves the divergence of the answers by (g e)^2 / 2, to second order, where g is
the gradient of log-probabilities, drawn at random with the Fisher information as its covariance.
What a range clips counts as it is, summed over an image. Rounding errors are independent: each has
a twelfth of the step's square. So a LeakyReLU's input, whose negative side the slope makes small,
gets a range that cuts off more of that side.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kedge_convert.export.exported import Range, Ranges
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor, passing
from kedge_convert.prepare.steps import STEPS
from kedge_convert.quantise.naming import tensor_names
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Doubles, Floats
from kedge_runtime.output import quiet

LOG = logging.getLogger("kedge")

# Ends of a range are tried as so many equal shares of the least and of the greatest value.
BINS = 20
SHARES = np.arange(BINS, 3, -1) / BINS
# Other images have values beyond these, and tensors are clipped on the same images.
CLIPPED = 4.0

ANSWERING = 48  # images; their tails set the ends
FEWEST = 16
# Values between a network's nodes, over all images: more take minutes.
AFFORDABLE = 1_000_000_000
TAPED = 32_000_000  # at once: the backward pass holds every value twice

# Logits -> a random combination of each image's, whose gradient has the covariance above.
Draw = Callable[[Any, np.random.Generator], Any]


@dataclass
class Pull:
    """How a tensor moves the answers, by image: when its ends are clipped at SHARES, by steps.

    `above`, `below`: [images, shares]; `power`: sum of squared gradients.
    """

    above: list[Doubles] = field(default_factory=list)
    below: list[Doubles] = field(default_factory=list)
    power: float = 0.0


def program_ranges(source: Source, content: bytes, images: ImageSplit, ends: Ranges) -> Ranges:
    """Return the ranges of a source's float TFLite program, by the names of its tensors.

    `ends`: the least and the greatest value that each takes. None of a network that is too large
    for a backward pass over FEWEST images, or that has an operator without a gradient.
    """
    graph = preparation.plan(source.model)
    image = next(tensors(images.preparation, source.input))
    count = min(ANSWERING, AFFORDABLE // _values(graph, image), len(images.preparation))
    if count < min(FEWEST, len(images.preparation)):
        return {}
    inputs = np.concatenate(list(tensors(images.preparation[:count], source.input)))
    names = tensor_names(graph, STATIC["tflite"], content, image).names
    known = {tensor: ends[min(own)] for tensor, own in names.items() if own}
    draw = sigmoid_draw if source.output.multi_label else softmax_draw
    try:
        with quiet():
            found = answer_ranges(graph, inputs, draw, known)
    except LookupError:  # TensorFlow's, for an operator without a gradient
        LOG.info("no ranges by answers", exc_info=True)
        return {}
    return {name: one for tensor, one in found.items() for name in names[tensor]}


def _values(graph: Graph, image: Floats) -> int:
    """Return how many values one image has between all nodes."""
    return sum(int(np.size(values[node.output])) for node, values in passing(graph, image))


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
    """Return the range of every tensor of `ends` that the answers depend on.

    Not of the input, whose steps are the pixels' own, nor of the output, which may be read by
    itself. `images`: float32 [n, h, w, 3]. `ends`: of all values.
    """
    pulls: dict[GraphTensor, Pull] = {}
    spared = (graph.input, graph.output)
    for values, gradients in _backward(graph, images, draw, np.random.default_rng(seed)):
        for tensor, gradient in gradients.items():
            if tensor in ends and tensor not in spared:
                pull = pulls.setdefault(tensor, Pull())
                _add(pull, np.asarray(values[tensor]), gradient, ends[tensor])
    return {tensor: _cheapest(pull, ends[tensor]) for tensor, pull in pulls.items()}


def _backward(
    graph: Graph, images: Floats, draw: Draw, rng: np.random.Generator
) -> Iterator[tuple[Mapping[GraphTensor, Any], dict[GraphTensor, Floats]]]:
    """Yield every tensor's values and gradients, a chunk of images at a time."""
    tf = require("tensorflow")
    taped = max(1, TAPED // _values(graph, images[:1]))
    for at in range(0, len(images), taped):
        with tf.GradientTape() as tape:
            values = {graph.input: tf.constant(images[at : at + taped])}
            tape.watch(values[graph.input])
            for node in graph.nodes:
                values[node.output] = node.run(values.__getitem__)
            answer = draw(values[graph.output], rng)
        found = tape.gradient(answer, list(values.values()))
        pairs = zip(values, found, strict=True)
        yield values, {tensor: np.asarray(each) for tensor, each in pairs if each is not None}


def _add(pull: Pull, value: Floats, gradient: Floats, ends: Range) -> None:
    value, gradient = (each.reshape(len(each), -1) for each in (value, gradient))
    pull.above.extend(_clipped(value, gradient, ends.high))
    pull.below.extend(_clipped(-value, -gradient, -ends.low))
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
    low, high = ends.low, ends.high
    above, below = np.stack(pull.above), np.stack(pull.below)
    moved = np.square(above[:, :, None] + below[:, None, :]).mean(axis=0)
    step = (high * SHARES[:, None] - low * SHARES) / STEPS
    costs = CLIPPED * moved + step**2 / 12 * (pull.power / len(above))
    top, bottom = np.unravel_index(int(costs.argmin()), costs.shape)
    return Range.over(low * float(SHARES[bottom]), high * float(SHARES[top]))
