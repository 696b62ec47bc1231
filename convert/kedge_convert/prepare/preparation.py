"""Prepare float weights layer by layer beside the float network, so that int8 keeps the answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kedge_convert.memory import trim
from kedge_convert.prepare import batches, shared
from kedge_convert.prepare.batches import Batched, Batches
from kedge_convert.prepare.equalise import equalise
from kedge_convert.prepare.fold import fold
from kedge_convert.prepare.graph import Graph, GraphTensor, Node, Weights, trace
from kedge_convert.prepare.kernels import KernelCall, rounded_kernel
from kedge_convert.prepare.one_step import equalise_for_one_step
from kedge_convert.prepare.rounding import LEVELS, Grid
from kedge_convert.prepare.running import CHUNK, forget, peak
from kedge_convert.prepare.steps import low_and_step
from kedge_runtime.arrays import Floats

MEMORY = 1 << 30  # bytes for the values of both networks
LARGE = 64 << 20  # bytes of a value that is worth a look for free pages

Tick = Callable[[], None]


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
    going, nodes = _RoundingPass(graph, images, rounding), []
    for i, node in enumerate(graph.nodes):
        nodes.append(going.past(i, node))
        tick()
    return graph.with_nodes(nodes)


class _RoundingPass:
    """The float network and the rounded one beside it, with the values that live now."""

    def __init__(self, graph: Graph, images: Floats, rounding: Rounding) -> None:
        self._rounding, self._last = rounding, graph.last_uses()
        self._rng = np.random.default_rng(rounding.seed)
        self._floats: Batched = {graph.input: Batches.of(images)}
        self._rounded: Batched = {graph.input: Batches.of(images)}
        kernels = [each for each in graph.nodes if each.weights and rounding.grid(each)]
        groups = shared.calls(kernels)
        self._calls = {node.output: group for group in groups for node in group}
        # Further calls have no rounded input yet when their kernel is rounded.
        self._ahead = shared.kept(graph, images, shared.inputs_of(groups))
        self._kernels: dict[GraphTensor, Floats] = {}

    def past(self, index: int, node: Node) -> Node:
        """Go past a node of the float network; return the rounded one."""
        rounded, is_float = self._prepared(node), node.output in self._rounding.floats
        if node.offsets is not None and not is_float:
            unshifted = batches.run(rounded, self._rounded)
            rounded = shifted(rounded, low_and_step(*unshifted.arrays)[1])
        spent = {tensor for tensor in node.inputs if self._last.get(tensor) == index}
        value = batches.run(rounded, self._rounded, spent)
        self._rounded[node.output] = value if is_float else batches.quantised(rounded, value)
        forget(node, index, self._last, self._rounded)
        if value.nbytes >= LARGE:
            trim()  # before the float network needs room
        self._floats[node.output] = batches.run(node, self._floats, spent)
        forget(node, index, self._last, self._floats)
        if value.nbytes >= LARGE:
            trim()  # before the next kernel is rounded
        return rounded

    def _prepared(self, node: Node) -> Node:
        """Return a weighted node with rounded kernel and corrected bias; any other as it is."""
        if node.weights is None:
            return node
        grid, source = self._rounding.grid(node), node.inputs[0]
        call = KernelCall(node, self._floats[source], self._rounded[source])
        if grid is None:
            return call.corrected(node.weights.kernel)
        if node.output not in self._kernels:
            others = [each for each in self._calls.get(node.output, ()) if each is not node]
            ahead = [KernelCall(each, *(self._ahead[each.inputs[0]],) * 2) for each in others]
            kernel = rounded_kernel([call, *ahead], grid, self._rng)
            self._kernels |= {each.output: kernel for each in (node, *others)}
        return call.corrected(self._kernels[node.output])


def shifted(node: Node, step: float) -> Node:
    """Return a node of copied channels with their shifts, which are in steps, in its bias."""
    assert node.weights is not None
    assert node.offsets is not None
    bias = node.weights.bias + node.offsets * np.float32(step)
    return replace(node, weights=replace(node.weights, bias=bias))


def affordable(graph: Graph, count: int) -> int:
    """Return how many of `count` images fit into MEMORY, at least 16."""
    ahead = shared.size(graph, shared.inputs_of(shared.calls(graph.nodes)))
    return min(count, max(16, MEMORY // (4 * (2 * peak(graph) + ahead))))


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
