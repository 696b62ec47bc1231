"""Prepare float weights layer by layer beside the float network, so that int8 keeps the answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kedge_convert.prepare import rounding as windows
from kedge_convert.prepare.equalise import equalise
from kedge_convert.prepare.fold import fold
from kedge_convert.prepare.graph import (
    CHUNK,
    Graph,
    GraphTensor,
    Node,
    Values,
    Weights,
    forget,
    peak,
    quantised,
    run,
    trace,
)
from kedge_convert.prepare.judging import closest, judges
from kedge_convert.prepare.one_step import equalise_for_one_step
from kedge_convert.prepare.rounding import LEVELS, Grid, on_grid_by_inputs, plain
from kedge_convert.prepare.steps import low_and_step
from kedge_runtime.arrays import Floats

MEMORY = 1 << 30  # bytes for the values of both networks
POSITIONS = 50  # sampled per image and layer
# Neighbouring positions are alike: so many of a image's count as independent samples.
INDEPENDENT = 10

Tick = Callable[[], None]
# A layer's input in the float network, and in the rounded one.
Pair = tuple[Floats, Floats]


@dataclass(frozen=True)
class Twins:
    """The values that live now, in the float network and in the rounded one."""

    floats: Values
    rounded: Values


@dataclass(frozen=True)
class Grids:
    """A quantiser's grids: `levels` as of a Grid.

    `per_channel_dense`: whether each output of a dense layer has its own step; `per_channel`:
    whether any layer's outputs have.
    """

    levels: int = LEVELS
    per_channel_dense: bool = True
    per_channel: bool = True

    def of(self, weights: Weights) -> Grid:
        """Return the grid of a layer."""
        dense = weights.kind == "dense" and not self.per_channel_dense
        return Grid(self.levels, shared=dense or not self.per_channel)


PLAIN = Grids()


@dataclass(frozen=True)
class Rounding:
    """How to round: repeatable by `seed`, onto which `grids`. The activations in `floats` stay
    float, as do the kernels of the layers that write or read them. `images`: how many to use at
    most, None for as many as MEMORY holds.
    """

    seed: int = 0
    floats: frozenset[GraphTensor] = frozenset()
    grids: Grids = PLAIN
    images: int | None = None

    def grid(self, node: Node) -> Grid | None:
        """Return the grid of a weighted node's kernel, None where that stays float."""
        assert node.weights is not None
        spared = not self.floats.isdisjoint((node.output, *node.inputs))
        return None if spared else self.grids.of(node.weights)


def round_weights(
    graph: Graph, images: Floats, rounding: Rounding, tick: Tick = lambda: None
) -> Graph:
    """Return the graph with every weighted node's kernel on the int8 grid and its bias corrected.

    `images`: float32 [n, h, w, 3], as the network takes them.
    """
    images = images[: rounding.images or affordable(graph, len(images))]
    twins = Twins({graph.input: images}, {graph.input: images})
    last, nodes = graph.last_uses(), []
    rng = np.random.default_rng(rounding.seed)
    for i, node in enumerate(graph.nodes):
        rounded = _round(node, twins, rounding, rng)
        value = run(rounded, twins.rounded)
        if node.offsets is not None and node.output not in rounding.floats:
            rounded = shifted(rounded, low_and_step(value)[1])
            value = run(rounded, twins.rounded)
        is_float = node.output in rounding.floats
        twins.rounded[node.output] = value if is_float else quantised(rounded, value)
        forget(node, i, last, twins.rounded)  # before the float network needs room
        twins.floats[node.output] = run(node, twins.floats)
        forget(node, i, last, twins.floats)
        nodes.append(rounded)
        tick()
    return graph.with_nodes(nodes)


def shifted(node: Node, step: float) -> Node:
    """Return a node of copied channels with their shifts, which are in steps, in its bias."""
    assert node.weights is not None
    assert node.offsets is not None
    bias = node.weights.bias + node.offsets * np.float32(step)
    return replace(node, weights=replace(node.weights, bias=bias))


def affordable(graph: Graph, count: int) -> int:
    """Return how many of `count` images fit into MEMORY, at least 16."""
    return min(count, max(16, MEMORY // (2 * 4 * peak(graph))))


def _round(node: Node, twins: Twins, rounding: Rounding, rng: np.random.Generator) -> Node:
    """Return a weighted node with rounded kernel and corrected bias; any other as it is.

    Plain rounding stays where its outputs are closer to the float layer's on the judging images.
    """
    if node.weights is None:
        return node
    source = node.inputs[0]
    pair, grid = (twins.floats[source], twins.rounded[source]), rounding.grid(node)
    if grid is None:
        return _corrected(node, node, pair)
    judging = judges(len(pair[0]))
    fitting = (pair[0][judging:], pair[1][judging:])
    at = windows.positions(node, pair[0].shape, POSITIONS, rng)
    kernels = _kernels(node, fitting, grid, at)
    candidates = [_corrected(node, _with_kernel(node, each), fitting) for each in kernels]
    if judging == 0:
        return candidates[0]
    chosen = closest(node, candidates, (pair[0][:judging], pair[1][:judging]), at)
    return _corrected(node, chosen, pair)


def _with_kernel(node: Node, kernel: Floats) -> Node:
    assert node.weights is not None
    return replace(node, weights=replace(node.weights, kernel=kernel))


def _kernels(node: Node, pair: Pair, grid: Grid, at: windows.Positions) -> list[Floats]:
    """Return two rounded kernels: compensated, and plain."""
    weights = node.weights
    assert weights is not None
    floats, rounded = (windows.sample(node, value, at) for value in pair)
    independent = len(pair[0]) * min(len(at), INDEPENDENT)
    flat = windows.flatten(weights).astype(np.float64)
    compensated = on_grid_by_inputs(flat, (rounded, floats), independent, grid)
    return [windows.restore(each, weights) for each in (compensated, plain(flat, grid))]


def _corrected(node: Node, rounded: Node, pair: Pair) -> Node:
    """Shift the bias by the mean output error (Finkelstein et al. 2019, arXiv:1906.03193).

    The layer is linear: the mean of its outputs is its output on the mean image.
    """
    assert rounded.weights is not None
    reference, actual = (
        np.asarray(one.linear(value.mean(axis=0, keepdims=True)), np.float64)
        for one, value in zip((node, rounded), pair, strict=True)
    )
    error = (reference - actual).mean(axis=tuple(range(reference.ndim - 1)))
    bias = (rounded.weights.bias + error).astype(np.float32)
    return replace(rounded, weights=replace(rounded.weights, bias=bias))


LARGEST_JUDGING = CHUNK


def plan(model: Any) -> Graph:
    """Return the model's graph with its batch norms folded."""
    return fold(trace(model))


def equalised(graph: Graph, images: Floats, *, per_channel: bool = True) -> Graph:
    """Return the same function with its channels equalised (equalise.py), weights still exact.

    `images`: float32 [n, h, w, 3], preprocessed, about 200 of the kind the model will see.
    `per_channel`: whether each output's weights have a step of their own (else one_step.py).
    """
    judging = max(1, min(len(images) // 5, LARGEST_JUDGING))
    method = equalise if per_channel else equalise_for_one_step
    return method(graph, images[judging:], images[:judging])
