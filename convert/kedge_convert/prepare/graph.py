"""Trace a Keras model to nodes in execution order, change them, build it again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.prepare.fused import fused
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

INPUT = "image"  # the name of a built model's input
Lookup = Callable[["GraphTensor"], Any]


@dataclass(frozen=True)
class GraphTensor:
    """A value between nodes, by its number."""

    id: int


@dataclass(frozen=True)
class Weights:
    """The kernel and bias of a layer that is linear in its input.

    `kind`: `conv` and `transposed` [h, w, in, out], `grouped` [h, w, in / groups, out], `depthwise`
    [h, w, in, multiplier] or `dense` [in, out]. `bias`: [out]. All float32.
    """

    kind: str
    kernel: Floats
    bias: Floats
    groups: int = 1


@dataclass(frozen=True)
class Node:
    """One operation: `layer` called on `args` and `kwargs`, in which Tensors stand for values.

    With `weights` the layer's own are not used, only its strides, padding and name; `activation` is
    the layer that follows it and is part of the node.
    """

    layer: Any
    args: Any
    kwargs: Any
    output: GraphTensor
    weights: Weights | None = None
    activation: Any = None
    offsets: Floats | None = None

    @property
    def inputs(self) -> list[GraphTensor]:
        """The input tensors."""
        return [leaf for leaf in self._leaves if isinstance(leaf, GraphTensor)]

    @property
    def constants(self) -> bool:
        """Whether numbers are among its inputs, as of `x + 1.5`."""
        flags = (GraphTensor, bool, str, type(None))
        return any(not isinstance(leaf, flags) for leaf in self._leaves)

    @property
    def _leaves(self) -> list[Any]:
        leaves: list[Any] = require("keras").tree.flatten((self.args, self.kwargs))
        return leaves

    def run(self, lookup: Lookup) -> Any:
        """Return its value, on numbers or, without weights of its own, on symbols."""
        args, kwargs = self._filled(lookup)
        if self.weights is None:
            return self.layer(*args, **kwargs)
        if function := fused(self.layer, self.weights.kind, self.activation):
            return function(args[0], self.weights.kernel, self.weights.bias)
        value = self.linear(args[0])
        return value if self.activation is None else self.activation(value)

    def linear(self, value: Any) -> Any:
        """Return a weighted node's value before its activation."""
        assert self.weights is not None
        return _LINEAR[self.weights.kind](self.layer, value, self.weights)

    def build(self, lookup: Lookup) -> Any:
        """Return its symbolic value; a weighted node becomes a Keras layer of the same name."""
        if self.weights is None:
            return self.run(lookup)
        changes = {"use_bias": True, "activation": "linear", **_width(self.weights)}
        layer = type(self.layer).from_config({**self.layer.get_config(), **changes})
        value = layer(lookup(self.inputs[0]))
        layer.set_weights(
            [in_keras_order(self.weights.kind, self.weights.kernel), self.weights.bias]
        )
        return value if self.activation is None else self.activation(value)

    def _filled(self, lookup: Lookup) -> Any:
        def fill(leaf: Any) -> Any:
            return lookup(leaf) if isinstance(leaf, GraphTensor) else leaf

        # Keras notes `training=True` for its augmentation, whatever the model is called with.
        training = {"training": False} if "training" in self.kwargs else {}
        return require("keras").tree.map_structure(fill, (self.args, self.kwargs | training))


class Item:
    """One output of an operation that has several; it is run again for each of them."""

    def __init__(self, operation: Any, index: int) -> None:
        """Take the operation and the index of the output among its outputs."""
        self.operation, self.index = operation, index
        self.name = f"{operation.name}_{index}"
        self.weights = getattr(operation, "weights", [])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output, on numbers or on symbols."""
        return require("keras").tree.flatten(self.operation(*args, **kwargs))[self.index]


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, from `input` to `output`. `shape`: of one image, [h, w, 3]."""

    name: str
    shape: tuple[int, ...]
    input: GraphTensor
    output: GraphTensor
    nodes: tuple[Node, ...]

    def build(self) -> Any:
        """Return the Keras model."""
        keras = require("keras")
        self._tell_apart()
        image = keras.Input(self.shape, name=INPUT)
        values = {self.input: image}
        for node in self.nodes:
            values[node.output] = node.build(values.__getitem__)
        return keras.Model(image, values[self.output], name=self.name)

    def _tell_apart(self) -> None:
        """Rename layers whose names meet now that nested models are flattened."""
        owners = {INPUT: 0}
        for layer in [each for node in self.nodes for each in (node.layer, node.activation)]:
            while layer is not None and owners.setdefault(layer.name, id(layer)) != id(layer):
                layer.name += "_"

    def with_nodes(self, nodes: "list[Node] | tuple[Node, ...]") -> "Graph":
        """Return the graph with other nodes between the same input and output."""
        return replace(self, nodes=tuple(nodes))

    def uses(self) -> dict[GraphTensor, int]:
        """Count the readers of each tensor; the output counts once more."""
        counts = {self.output: 1}
        for node in self.nodes:
            for tensor in node.inputs:
                counts[tensor] = counts.get(tensor, 0) + 1
        return counts

    def last_uses(self) -> dict[GraphTensor, int]:
        """Return the index of the last node that takes each tensor; the output has none."""
        last = {tensor: i for i, node in enumerate(self.nodes) for tensor in node.inputs}
        last.pop(self.output, None)
        return last


def trace(model: Any) -> Graph:
    """Return the graph of a Functional or Sequential model with one input and one output."""
    keras = require("keras")
    symbols: list[Any] = []  # kept, so that no two have the same id
    numbers: dict[int, GraphTensor] = {}
    nodes: list[Node] = []

    def number(symbol: Any) -> Any:
        if not isinstance(symbol, keras.KerasTensor):
            return symbol
        symbols.append(symbol)
        return numbers.setdefault(id(symbol), GraphTensor(len(numbers)))

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        inner = getattr(operation, "_functional", operation)
        if isinstance(inner, keras.Model):
            return inner._run_through_graph(args[0], lambda each: each, call)
        value = operation(*args, **kwargs)
        taken = keras.tree.map_structure(number, (args, kwargs))
        for i, each in enumerate(keras.tree.flatten(value)):
            one = operation if each is value else Item(operation, i)
            nodes.append(Node(one, taken[0], taken[1], number(each)))
        return value

    image = keras.Input(batch_shape=model.inputs[0].shape)
    start = number(image)
    end = keras.tree.flatten(call(model, image))[0]
    return Graph(model.name, tuple(image.shape[1:]), start, number(end), tuple(nodes))


def _width(weights: Weights) -> dict[str, int]:
    """Return the option of a Keras layer that states the kernel's outputs."""
    option = {
        "conv": "filters",
        "grouped": "filters",
        "transposed": "filters",
        "depthwise": "depth_multiplier",
        "dense": "units",
    }
    return {option[weights.kind]: weights.kernel.shape[-1]}


def in_keras_order(kind: str, kernel: Floats) -> Floats:
    """Return a kernel of Weights as Keras holds it, or one of Keras's as Weights do.

    Keras has the outputs of a transposed convolution before its inputs.
    """
    return kernel.swapaxes(2, 3) if kind == "transposed" else kernel


def _conv(layer: Any, value: Any, weights: Weights) -> Any:
    return require("keras").ops.conv(value, weights.kernel, **_window(layer)) + weights.bias


def _transposed(layer: Any, value: Any, weights: Weights) -> Any:
    kernel = in_keras_order(weights.kind, weights.kernel)
    window = {**_window(layer), "output_padding": layer.output_padding}
    return require("keras").ops.conv_transpose(value, kernel, **window) + weights.bias


def _depthwise(layer: Any, value: Any, weights: Weights) -> Any:
    ops = require("keras").ops
    return ops.depthwise_conv(value, weights.kernel, **_window(layer)) + weights.bias


def _dense(layer: Any, value: Any, weights: Weights) -> Any:
    return require("keras").ops.matmul(value, weights.kernel) + weights.bias


def _window(layer: Any) -> dict[str, Any]:
    return {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
    }


_LINEAR: dict[str, Callable[[Any, Any, Weights], Any]] = {
    "conv": _conv,
    "grouped": _conv,
    "transposed": _transposed,
    "depthwise": _depthwise,
    "dense": _dense,
}
