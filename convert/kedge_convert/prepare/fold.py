"""Fold batch norms into the layers before them; give weighted layers a bias, split off activations.

Jacob et al. 2018, arXiv:1712.05877, section 3.2: w' = w * gamma / sigma, b' = (b - mean) * gamma /
sigma + beta. Each call of a layer has its own norm behind it, so it becomes a layer of its own;
calls whose kernels stay equal share them (shared.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kedge_convert.prepare.graph import Graph, GraphTensor, Node, Weights, in_keras_order
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

KINDS = {
    "Conv2D": "conv",
    "Conv2DTranspose": "transposed",
    "DepthwiseConv2D": "depthwise",
    "Dense": "dense",
}
ACTIVATIONS = frozenset({"Activation", "ReLU"})
# Layers that do nothing outside of training.
IDLE = frozenset({"Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D"})


def fold(graph: Graph) -> Graph:
    """Return the same function with fewer nodes: no dropouts, no foldable batch norms."""
    graph = _split_separables(graph)
    folded, called = _Folding(graph.uses()), set[int]()
    for node in graph.nodes:
        folded.add(_weighted(node, again=id(node.layer) in called))
        called.add(id(node.layer))
    merged = replace(graph, nodes=tuple(folded.nodes), output=folded.alias(graph.output))
    return _split_activations(merged)


class _Folding:
    """The nodes so far; `_renamed` leads from a dropped node's output to its replacement."""

    def __init__(self, uses: dict[GraphTensor, int]) -> None:
        self._uses = uses
        self._renamed: dict[GraphTensor, GraphTensor] = {}
        self._index: dict[GraphTensor, int] = {}
        self.nodes: list[Node] = []

    def alias(self, tensor: GraphTensor) -> GraphTensor:
        return self._renamed.get(tensor, tensor)

    def add(self, node: Node) -> None:
        node = self._with_aliases(node)
        kind = type(node.layer).__name__
        before = self._before(node)
        if kind in IDLE:
            self._renamed[node.output] = node.inputs[0]
            # Its readers are its input's now, in its own place.
            self._uses[node.inputs[0]] += self._uses.get(node.output, 0) - 1
        elif kind == "BatchNormalization" and before is not None and _by_channel(node.layer):
            self._merge(node, replace(before, weights=normed(before, node.layer)))
        elif kind in ACTIVATIONS and before is not None:
            self._merge(node, replace(before, activation=node.layer))
        else:
            self._index[node.output] = len(self.nodes)
            self.nodes.append(node)

    def _before(self, node: Node) -> Node | None:
        """Return the weighted node whose bare output only `node` takes, if there is one."""
        taken = node.inputs[0] if len(node.inputs) == 1 else None
        if taken is None or taken not in self._index:
            return None
        before = self.nodes[self._index[taken]]
        free = before.weights is not None and before.activation is None
        return before if free and self._uses.get(taken) == 1 else None

    def _merge(self, node: Node, merged: Node) -> None:
        self.nodes[self._index[merged.output]] = merged
        self._renamed[node.output] = merged.output
        # The readers of the dropped node's output read the merged one's now.
        self._uses[merged.output] = self._uses[node.output]

    def _with_aliases(self, node: Node) -> Node:
        def renamed(leaf: Any) -> Any:
            return self.alias(leaf) if isinstance(leaf, GraphTensor) else leaf

        args, kwargs = require("keras").tree.map_structure(renamed, (node.args, node.kwargs))
        return replace(node, args=args, kwargs=kwargs)


def normed(node: Node, norm: Any) -> Weights:
    """Return a node's weights with a batch norm folded in, computed in float64."""
    assert node.weights is not None
    weights = node.weights
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    beta = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    factor = gamma / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    bias = (weights.bias - np.asarray(norm.moving_mean, np.float64)) * factor + beta
    kernel = weights.kernel * per_output(weights, factor)
    return replace(weights, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))


def per_output(weights: Weights, values: Any) -> Any:
    """Return values, [out], in a shape that multiplies the kernel of each output channel."""
    return values.reshape(weights.kernel.shape[2:]) if weights.kind == "depthwise" else values


def _weighted(node: Node, *, again: bool) -> Node:
    """Return the node with its layer's weights as its own, where kedge can prepare them.

    `again`: whether the layer was called before; then the node gets a copy of it.
    """
    layer = node.layer
    kind = KINDS.get(type(layer).__name__)
    if kind is None or not _channels_last(layer):
        return node
    groups = getattr(layer, "groups", 1)
    kernel, *bias = (np.asarray(weight, np.float32) for weight in layer.get_weights())
    kind = "grouped" if groups > 1 else kind
    kernel = in_keras_order(kind, kernel)
    weights = Weights(kind, kernel, bias[0] if bias else _zeros(kind, kernel), groups)
    linear = require("keras").activations.linear
    own = layer.activation
    activation = None if own is linear else _as_layer(layer.name, own)
    if again:
        layer = type(layer).from_config(layer.get_config())
    return replace(node, layer=layer, weights=weights, activation=activation)


def _zeros(kind: str, kernel: Floats) -> Floats:
    outputs = kernel.shape[-2] * kernel.shape[-1] if kind == "depthwise" else kernel.shape[-1]
    return np.zeros(outputs, np.float32)


def _by_channel(norm: Any) -> bool:
    """Whether a batch norm's axis is the last one, that of the outputs before it."""
    return norm.axis in (-1, norm.input_spec.ndim - 1)


def _channels_last(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _as_layer(name: str, activation: Callable[..., Any]) -> Any:
    return require("keras").layers.Activation(activation, name=f"{name}_activation")


def _split_separables(graph: Graph) -> Graph:
    """Return the graph with each SeparableConv2D as the two layers that it is."""
    nodes: list[Node] = []
    for node in graph.nodes:
        separable = type(node.layer).__name__ == "SeparableConv2D"
        nodes += _halves(node) if separable and _channels_last(node.layer) else [node]
    return graph.with_nodes(nodes)


def _halves(node: Node) -> list[Node]:
    layers, layer = require("keras").layers, node.layer
    shared = {"padding": layer.padding, "dilation_rate": layer.dilation_rate}
    depthwise = layers.DepthwiseConv2D(
        layer.kernel_size,
        strides=layer.strides,
        depth_multiplier=layer.depth_multiplier,
        use_bias=False,
        name=f"{layer.name}_depthwise",
        **shared,
    )
    pointwise = layers.Conv2D(
        layer.filters, 1, activation=layer.activation, use_bias=layer.use_bias, name=layer.name
    )
    between = GraphTensor(-1 - 2 * node.output.id)  # the traced ones count from 0
    kernels = layer.get_weights()
    depthwise.build((None, None, None, kernels[0].shape[2]))
    depthwise.set_weights(kernels[:1])
    pointwise.build((None, None, None, kernels[1].shape[2]))
    pointwise.set_weights(kernels[1:])
    first = replace(node, layer=depthwise, output=between)
    return [first, Node(pointwise, (between,), {}, node.output)]


def ceiling(activation: Any) -> float | None:
    """Return where an activation cuts off: 6 for ReLU6, infinity for ReLU and for none.

    None for another function: no engine's kernel computes it within a layer.
    """
    name = type(activation).__name__
    if activation is None:
        return float("inf")
    if name == "ReLU":
        plain = activation.negative_slope == 0 and activation.threshold == 0
        top = activation.max_value
        return None if not plain else float("inf") if top is None else float(top)
    function = getattr(getattr(activation, "activation", None), "__name__", "")
    return {"relu": float("inf"), "relu6": 6.0, "linear": float("inf")}.get(function)


def _split_activations(graph: Graph) -> Graph:
    """Return the graph with activations apart where engines round to integers before them."""
    nodes: list[Node] = []
    for node in graph.nodes:
        apart = node.weights is not None and ceiling(node.activation) is None
        nodes += _apart(node) if apart else [node]
    return graph.with_nodes(nodes)


def _apart(node: Node) -> list[Node]:
    between = GraphTensor(-2 - 2 * node.output.id)
    linear = replace(node, activation=None, output=between)
    return [linear, Node(node.activation, (between,), {}, node.output)]
