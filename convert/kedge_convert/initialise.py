"""Weights for `--weights none`: random, yet with answers that differ from picture to picture.

A deep network with the usual random weights gives nearly the same answer to every picture, so that
parity would mean nothing. Here every layer in execution order is settled on real pictures: weights
are scaled to outputs of unit variance (Mishkin & Matas 2016, arXiv:1511.06422), biases take away
what is common to all pictures (Krähenbühl et al. 2016, arXiv:1511.06856), and batch norms get the
statistics of what they are fed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kedge_convert.images import Photos, tensors
from kedge_convert.prepare.graph import Graph, Node, Values, forget, peak, run, trace
from kedge_convert.source import Source, digest
from kedge_convert.toolkit import require
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.output import quiet

MEMORY = 1 << 30  # bytes for the values that live at once
PICTURES = (8, 32)  # at least and at most
# The logits' standard deviation over pictures; trained ImageNet networks have 2 to 3.
LOGIT_SPREAD = 2.5
# Norms' own weights differ by channel, as trained ones do: else swapped channels would be equal.
# The shifts are upward: about zero a swish grows faster than its input, and layer by layer a
# picture rich in contrast gets ahead, to logits a hundred times the others' (EfficientNetB0).
FACTORS, SHIFTS = (0.5, 1.5), (0.5, 1.5)


@dataclass(frozen=True)
class Settling:
    """What settles a layer: the values before it, the generator, the wanted deviation."""

    values: Values
    rng: np.random.Generator
    spread: float


def initialised(source: Source, photos: Photos, seed: int, progress: Progress) -> Source:
    """Return the source with random weights settled on its calibration pictures.

    Repeatable by `seed`. The layers of `source.model` are changed in place.
    """
    progress.say(
        f"{source.name}: the weights are untrained (--weights none): its files show what converts, "
        "how fast and how exactly; its answers mean nothing"
    )
    graph = trace(source.model)
    least, most = PICTURES
    count = min(most, max(least, MEMORY // (4 * peak(graph))))
    pictures = np.concatenate(list(tensors(photos.calibration[:count], source.input)))
    with progress.stage("initialise weights", len(graph.nodes)) as tick, quiet():
        initialise(graph, pictures, seed, tick)
    return replace(source, weights_digest=digest(source.model))


def initialise(
    graph: Graph, pictures: Floats, seed: int = 0, tick: Callable[[], None] = lambda: None
) -> None:
    """Settle every layer of a traced model in place, in one pass over `pictures`.

    `pictures`: float32 [n, h, w, 3], preprocessed. `tick` is called once per node.
    """
    rng, last = np.random.default_rng(seed), graph.last_uses()
    head = [node.output for node in graph.nodes if _settler(node) is _weigh][-1:]
    values: Values = {graph.input: pictures}
    for i, node in enumerate(graph.nodes):
        if settle := _settler(node):
            spread = LOGIT_SPREAD if [node.output] == head else 1.0
            settle(node, Settling(values, rng, spread))
        values[node.output] = run(node, values)
        forget(node, i, last, values)
        tick()


def _settler(node: Node) -> Callable[[Node, Settling], None] | None:
    return SETTLERS.get(type(node.layer).__name__)


def _weigh(node: Node, settling: Settling) -> None:
    """Draw the kernels; scale the last, and set the bias, by what comes out."""
    layer = node.layer
    layer.set_weights([_drawn(weight, settling.rng) for weight in layer.weights])
    value = _before_activation(node, settling.values)
    axes = tuple(range(value.ndim - 1))
    mean, variance = value.mean(axes, np.float64), value.var(axes, np.float64)
    scale = settling.spread / max(float(variance.mean()) ** 0.5, 1e-12)
    *kernels, last = (np.asarray(weight) for weight in layer.weights if len(weight.shape) > 1)
    bias = [-mean * scale] if layer.use_bias else []
    layer.set_weights([*kernels, last * np.float32(scale), *bias])


def _drawn(weight: Any, rng: np.random.Generator) -> Floats:
    """Return normal numbers for a kernel and zeros for a bias."""
    if len(weight.shape) == 1:
        return np.zeros(weight.shape, np.float32)
    drawn: Floats = rng.standard_normal(weight.shape, np.float32)
    return drawn


def _before_activation(node: Node, values: Values) -> Floats:
    layer = node.layer
    activation, layer.activation = layer.activation, require("keras").activations.linear
    try:
        return run(node, values)
    finally:
        layer.activation = activation


def _vary(node: Node, settling: Settling) -> None:
    """Draw a norm's or a layer scale's factors and shifts, channel by channel."""
    # Not by the weights' names: Keras gives those of its LayerScale none.
    for attribute, bounds in {"gamma": FACTORS, "beta": SHIFTS}.items():
        if (weight := getattr(node.layer, attribute, None)) is not None:
            weight.assign(settling.rng.uniform(*bounds, weight.shape))


def _measure(node: Node, settling: Settling) -> None:
    """Give a batch norm the statistics of its input."""
    _vary(node, settling)
    layer, value = node.layer, settling.values[node.inputs[0]]
    axes = tuple(i for i in range(value.ndim) if i != layer.axis % value.ndim)
    layer.moving_mean.assign(value.mean(axes, np.float64))
    layer.moving_variance.assign(value.var(axes, np.float64))


SETTLERS: dict[str, Callable[[Node, Settling], None]] = {
    "BatchNormalization": _measure,
    "Conv2D": _weigh,
    "Dense": _weigh,
    "DepthwiseConv2D": _weigh,
    "LayerNormalization": _vary,
    "LayerScale": _vary,
    "SeparableConv2D": _weigh,
}
