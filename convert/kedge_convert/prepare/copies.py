"""Write channels several times, a part of a step apart, so that int8 holds their mean more finely.

Copy k of n rounds x + (k - (n - 1) / 2) / n steps. The mean of all copies has n times as many
steps. All shifts are below half a step, so that zero stays zero. A depthwise convolution passes
copies on; a convolution or dense layer reads their mean: its weights n times, divided by n.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.graph import Graph, GraphTensor, Node, Weights

# The old channel of each new one; None where nothing is copied.
Layout = NDArray[np.intp] | None
Layouts = dict[GraphTensor, Layout]

CHANNELWISE = frozenset(
    {
        *("ZeroPadding2D", "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"),
        *("GlobalMaxPooling2D", "Identity", "ReLU", "Activation", "LeakyReLU"),
        *("Add", "Subtract", "Maximum", "Multiply"),
    }
)


class CopyError(ValueError):
    """A node whose channels can't be told apart reads copies."""


def copied(graph: Graph, copies: Mapping[GraphTensor, int]) -> Graph:
    """Return the same function with the channels of some weighted nodes' outputs written n times.

    Raises CopyError.
    """
    layouts: Layouts = {graph.input: None}
    nodes = [_copied(node, layouts, copies.get(node.output, 1)) for node in graph.nodes]
    if layouts[graph.output] is not None:
        raise CopyError("the output of the network")
    return graph.with_nodes(nodes)


def _copied(node: Node, layouts: Layouts, count: int) -> Node:
    """Return the node for its inputs' layouts; note its output's."""
    if node.weights is None:
        layouts[node.output] = _passed(node, [layouts[tensor] for tensor in node.inputs])
        return node
    made = _depthwise if node.weights.kind == "depthwise" else _dense
    weights, layout = made(node.weights, layouts[node.inputs[0]], count)
    layouts[node.output] = layout
    return replace(node, weights=weights, offsets=offsets(layout))


def _passed(node: Node, layouts: list[Layout]) -> Layout:
    first = layouts[0] if layouts else None
    if all(layout is None for layout in layouts):
        return None
    same = all(_equal(first, layout) for layout in layouts)
    if type(node.layer).__name__ not in CHANNELWISE or node.constants or not same:
        raise CopyError(node.layer.name)
    return first


def _equal(one: Layout, other: Layout) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


def _dense(weights: Weights, layout: Layout, count: int) -> tuple[Weights, Layout]:
    """Return the weights on the mean of copied inputs, with `count` copies of each output."""
    kernel, bias = weights.kernel, weights.bias
    if layout is not None:
        shares = np.bincount(layout)[layout].astype(np.float32)
        kernel = kernel[..., layout, :] / shares[:, None]
    if count == 1:
        return replace(weights, kernel=kernel), None
    outputs = np.tile(np.arange(len(bias)), count)
    return replace(weights, kernel=kernel[..., outputs], bias=bias[outputs]), outputs


def _depthwise(weights: Weights, layout: Layout, count: int) -> tuple[Weights, Layout]:
    """Return the weights on each copy of the inputs, or on `count` copies of none."""
    kernel, bias = weights.kernel, weights.bias
    inputs, multiplier = kernel.shape[2:]
    count = 1 if layout is not None else count
    if layout is None and count == 1:
        return weights, None
    taken = np.arange(inputs) if layout is None else layout
    made = np.tile(np.arange(multiplier), count)
    outputs = (taken[:, None] * multiplier + made).ravel()
    kernel = kernel[:, :, taken][..., made]
    return replace(weights, kernel=kernel, bias=bias[outputs]), outputs


def offsets(layout: Layout) -> Any:
    """Return each channel's shift in steps, [channels] float32."""
    if layout is None:
        return None
    order = np.argsort(layout, kind="stable")
    ordered = layout[order]
    starts = np.searchsorted(ordered, ordered)
    which = np.empty(len(layout), np.intp)
    which[order] = np.arange(len(layout)) - starts
    counts = np.bincount(layout)[layout]
    return ((which - (counts - 1) / 2) / counts).astype(np.float32)
