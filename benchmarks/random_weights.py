"""Random weights whose answers differ from image to image: for benchmarks without a download.

A deep network with the usual random weights gives nearly the same answer to every image, so parity
would mean nothing. Here every layer in execution order is settled on real images: weights are
scaled to outputs of unit variance (Mishkin & Matas 2016, arXiv:1511.06422), biases take away what
is common to all images (Krähenbühl et al. 2016, arXiv:1511.06856), and batch norms get the
statistics of their input. The files show what converts, how fast and how exactly; the answers mean
nothing.

    python benchmarks/random_weights.py --model MobileNetV2 --images DIR --out DIR
"""

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.images import collect, tensors
from kedge_convert.prepare.graph import Graph, Node, trace
from kedge_convert.prepare.running import Values, forget, peak, run
from kedge_convert.sampling import Sampling
from kedge_convert.toolkit import require
from kedge_models.cards import Card, card
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Input
from kedge_runtime.output import quiet

MEMORY = 1 << 30  # bytes for the values that live at once
IMAGES = (8, 32)  # at least and at most
NONE = "none"  # of the benchmarks' option --weights
# The logits' standard deviation over images; trained ImageNet networks have 2 to 3.
LOGIT_SPREAD = 2.5
# Norms' own weights differ by channel, as trained ones do: else swapped channels would be equal.
# The shifts are upward: about zero a swish grows faster than its input, and layer by layer a
# image rich in contrast gets ahead, to logits a hundred times the others' (EfficientNetB0).
FACTORS, SHIFTS = (0.5, 1.5), (0.5, 1.5)


@dataclass(frozen=True)
class Settling:
    """What settles a layer: the values before it, the generator, the wanted deviation."""

    values: Values
    rng: np.random.Generator
    spread: float


def build(found: Card, size: int | None = None) -> Any:
    """Return a card's application with Keras's own random weights, from images to logits."""
    application = getattr(require("keras").applications, found.application)
    side = size or found.size
    shape = (side, side, 3)
    return application(
        weights=None, input_shape=shape, classifier_activation=None, **found.arguments
    )


def settled(found: Card, images: Path, sampling: Sampling) -> Any:
    """Return a card's application with random weights settled on its calibration images.

    Repeatable by the sampling's seed.
    """
    model, least, most = build(found), *IMAGES
    graph = trace(model)
    count = min(most, max(least, MEMORY // (4 * peak(graph))))
    paths = collect(images, sampling).calibration[:count]
    inputs = list(tensors(paths, Input(found.geometry(), found.normaliser())))
    with quiet():
        initialise(graph, np.concatenate(inputs), sampling.seed)
    return model


def write(name: str, images: Path, sampling: Sampling, folder: Path) -> Path:
    """Write a card's settled model as NAME-untrained.keras, and return its path.

    In a process of its own, so that its memory is gone before anything is measured.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_write, name, images, sampling, folder).result()


def _write(name: str, images: Path, sampling: Sampling, folder: Path) -> Path:
    found = card(name)
    path = folder / f"{found.name.lower()}-untrained.keras"
    settled(found, images, sampling).save(path)
    return path


def initialise(
    graph: Graph, images: Floats, seed: int = 0, tick: Callable[[], None] = lambda: None
) -> None:
    """Settle every layer of a traced model in place, in one pass over `images`.

    `images`: float32 [n, h, w, 3], preprocessed. `tick` is called once per node.
    """
    rng, last = np.random.default_rng(seed), graph.last_uses()
    head = [node.output for node in graph.nodes if _settler(node) is _weigh][-1:]
    values: Values = {graph.input: images}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(write(arguments.model, arguments.images, Sampling(), arguments.out))


if __name__ == "__main__":
    main()
