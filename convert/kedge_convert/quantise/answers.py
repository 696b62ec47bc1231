"""Choose each activation's range by what int8 does to the answers, from one backward pass.

A tensor's error e moves the divergence of the answers by (g e)^2 / 2, to second order, where g is
the gradient of log-probabilities, drawn at random with the Fisher information as its covariance.
What a range clips counts as it is, summed over an image. Rounding errors are independent: each has
a twelfth of the step's square. So a LeakyReLU's input, whose negative side the slope makes small,
gets a range that cuts off more of that side.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kedge_convert.export.exported import Range, Ranges
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor, fold_over
from kedge_convert.prepare.pairs import slopes
from kedge_convert.prepare.steps import STEPS
from kedge_convert.quantise.naming import tensor_names
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Doubles, Floats
from kedge_runtime.output import quiet

# Ends of a range, as shares of the least and the greatest value.
SHARES = np.array([*np.linspace(1, 0.5, 11), 0.4, 0.3, 0.2])
# Other images have values beyond these, and tensors are clipped on the same images.
CLIPPED = 4.0

Ends = dict[GraphTensor, tuple[float, float]]
# Logits -> a random combination of each image's, whose gradient has the covariance above.
Draw = Callable[[Any, np.random.Generator], Any]


@dataclass
class Pull:
    """How a tensor moves the answers, by image: when its ends are clipped at SHARES, by steps.

    `above`, `below`: [images] of [shares]; `power`: [images], sums of squared gradients.
    """

    above: list[Doubles] = field(default_factory=list)
    below: list[Doubles] = field(default_factory=list)
    power: list[float] = field(default_factory=list)


ANSWERING = 96  # images; their tails set the ends
TAPED = 8  # images at once: the backward pass holds every tensor


def program_ranges(source: Source, content: bytes, images: ImageSplit) -> Ranges:
    """Return the ranges of a source's float TFLite program, by the names of its tensors.

    None without a LeakyReLU: elsewhere a tensor's values matter alike, and a backward pass costs
    more than all other methods together.
    """
    graph, paths = preparation.plan(source.model), images.preparation[:ANSWERING]
    if all(slopes(node) is None for node in graph.nodes):
        return {}
    inputs = np.concatenate(list(tensors(paths, source.input)))
    names = tensor_names(graph, STATIC["tflite"], content, inputs[:1]).names
    draw = sigmoid_draw if source.output.multi_label else softmax_draw
    with quiet():
        found = answer_ranges(graph, inputs, draw)
    return {name: one for tensor, one in found.items() for name in names[tensor]}


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
    graph: Graph, images: Floats, draw: Draw, seed: int = 0
) -> dict[GraphTensor, Range]:
    """Return the range of every tensor between input and output that the answers depend on.

    The input's steps are the pixels' own, and the output may be read by itself. `images`: float32
    [n, h, w, 3].
    """
    ends, pulls = _ends(graph, images), dict[GraphTensor, Pull]()
    for values, gradients in _backward(graph, images, draw, np.random.default_rng(seed)):
        for tensor, gradient in gradients.items():
            if tensor in (graph.input, graph.output):
                continue
            pull = pulls.setdefault(tensor, Pull())
            for value, one in zip(np.asarray(values[tensor]), gradient, strict=True):
                _add(pull, value.reshape(-1), one.reshape(-1), ends[tensor])
    return {tensor: _cheapest(pull, *ends[tensor]) for tensor, pull in pulls.items()}


def _ends(graph: Graph, images: Floats) -> Ends:
    """Return every tensor's least value, or zero, and its greatest."""
    found: Ends = {}

    def visit(tensor: GraphTensor, value: Floats) -> None:
        low, high = found.get(tensor, (0.0, 0.0))
        found[tensor] = min(low, float(value.min())), max(high, float(value.max()))

    fold_over(graph, images, visit)
    return found


def _backward(
    graph: Graph, images: Floats, draw: Draw, rng: np.random.Generator
) -> Iterator[tuple[Mapping[GraphTensor, Any], dict[GraphTensor, Floats]]]:
    """Yield every tensor's values and gradients, a chunk of images at a time."""
    tf = require("tensorflow")
    for at in range(0, len(images), TAPED):
        with tf.GradientTape() as tape:
            values = {graph.input: tf.constant(images[at : at + TAPED])}
            tape.watch(values[graph.input])
            for node in graph.nodes:
                values[node.output] = node.run(values.__getitem__)
            answer = draw(values[graph.output], rng)
        found = tape.gradient(answer, list(values.values()))
        pairs = zip(values, found, strict=True)
        yield values, {tensor: np.asarray(each) for tensor, each in pairs if each is not None}


def _add(pull: Pull, value: Floats, gradient: Floats, ends: tuple[float, float]) -> None:
    low, high = ends
    pull.above.append(_clipped(value, gradient, high))
    pull.below.append(_clipped(-value, -gradient, -low))
    # Zero is held exactly.
    pull.power.append(float(np.square(gradient[value != 0], dtype=np.float64).sum()))


def _clipped(value: Floats, gradient: Floats, end: float) -> Doubles:
    """Return how an image's answers move by what lies beyond each share of the end, [shares]."""
    beyond = value > end * SHARES.min() if end > 0 else np.zeros(len(value), bool)
    value, gradient = value[beyond], gradient[beyond].astype(np.float64)
    return np.array([gradient @ np.maximum(value - end * share, 0) for share in SHARES])


def _cheapest(pull: Pull, low: float, high: float) -> Range:
    above, below = np.stack(pull.above), np.stack(pull.below)
    moved = np.square(above[:, :, None] + below[:, None, :]).mean(axis=0)
    step = (high * SHARES[:, None] - low * SHARES) / STEPS
    costs = CLIPPED * moved + step**2 / 12 * np.mean(pull.power)
    top, bottom = np.unravel_index(int(costs.argmin()), costs.shape)
    return Range.over(low * float(SHARES[bottom]), high * float(SHARES[top]))
