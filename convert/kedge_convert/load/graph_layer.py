"""A TensorFlow graph as a Keras layer, so that everything downstream meets a Keras model.

The graph's large constants become the layer's weights, which are counted, hashed and exported like
any other's.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from kedge_convert.toolkit import require

INPUT_NAME = "picture"  # of a graph's Keras model; it is a part of the artefacts' bytes
# TensorFlow's module that makes constants of variables.
CONSTANTS = "tensorflow.python.framework.convert_to_constants"
# Quantise and dequantise at once, as a model trained for int8 does (fake_quant.py).
FAKE_QUANT = frozenset(
    {
        "FakeQuantWithMinMaxArgs",
        "FakeQuantWithMinMaxVars",
        "FakeQuantWithMinMaxVarsPerChannel",
    }
)
# Operations that keep their input's numbers, one for one.
PASS_THROUGH = frozenset({"Identity", "Reshape", "Squeeze"}) | FAKE_QUANT
# The operation that gives the numbers -> the output type. Others: only predictions can tell.
OUTPUT_KINDS = {
    "Add": "logits",
    "AddV2": "logits",
    "BiasAdd": "logits",
    "Conv2D": "logits",
    "MatMul": "logits",
    "MaxPool": "features",
    "Mean": "features",
    "Relu": "features",
    "Relu6": "features",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}


@dataclass(frozen=True)
class FrozenGraph:
    """A flat GraphDef without variables. `input` and `output` are names of tensors, `conv:0`."""

    definition: Any
    input: str
    output: str

    def readers(self, name: str) -> list[Any]:
        """Return the nodes that read a node's output."""
        return [node for node in self.definition.node if name in _inputs_of(node)]

    def leading(self, kinds: frozenset[str]) -> list[Any]:
        """Return the nodes behind the input, in order, while all are of `kinds`."""
        done, nodes = {node_name(self.input)}, list[Any]()
        behind = self.downstream(node_name(self.input))
        reached = [node for node in self.definition.node if node.name in behind]
        names = done | {node.name for node in reached}
        while ready := [
            node
            for node in reached
            if node.op in kinds and node.name not in done and _inputs_of(node) & names <= done
        ]:
            nodes += ready
            done |= {node.name for node in ready}
        return nodes

    def downstream(self, name: str) -> set[str]:
        """Return the names of the nodes that depend on a node, without its own."""
        readers = defaultdict[str, list[str]](list)
        for node in self.definition.node:
            for each in _inputs_of(node):
                readers[each].append(node.name)
        waiting, reached = [name], set[str]()
        while waiting:
            new = set(readers[waiting.pop()]) - reached
            reached |= new
            waiting += new
        return reached

    def pruned(self) -> "FrozenGraph":
        """Return the graph without the nodes that the output doesn't need."""
        extract = require("tensorflow").compat.v1.graph_util.extract_sub_graph
        return replace(self, definition=extract(self.definition, [node_name(self.output)]))

    def changed(self, change: Callable[[Any], None]) -> "FrozenGraph":
        """Return a copy of the graph; `change` is called with each node of it."""
        definition = type(self.definition)()
        definition.CopyFrom(self.definition)
        for node in definition.node:
            change(node)
        return replace(self, definition=definition)

    def last_operation(self) -> str:
        """Return the operation that gives the output's numbers."""
        return str(self._last_nodes()[-1].op)

    def output_range(self) -> tuple[str, str] | None:
        """Return the tensors of the output's least and largest number; None without a range."""
        ranged = [node for node in self._last_nodes() if node.op == "FakeQuantWithMinMaxVars"]
        return (ranged[0].input[1], ranged[0].input[2]) if ranged else None

    def _last_nodes(self) -> list[Any]:
        """Return the nodes from the output back to the one that gives its numbers."""
        nodes = {node.name: node for node in self.definition.node}
        path = [nodes[node_name(self.output)]]
        while path[-1].op in PASS_THROUGH:
            path.append(nodes[node_name(path[-1].input[0])])
        return path

    def output_kind(self) -> str | None:
        """Return the output type by the last operation; None where that leaves it open."""
        return OUTPUT_KINDS.get(self.last_operation())

    def without_activation(self) -> "FrozenGraph":
        """Return the graph whose last softmax or sigmoid is an identity.

        Exact: behind it only changes of shape lie before the output.
        """
        path = self._last_nodes()
        # A range behind the activation is one of probabilities.
        names = {node.name for node in path if node.op in FAKE_QUANT} | {path[-1].name}

        def skip(node: Any) -> None:
            if node.name in names:
                as_identity(node)

        return self.changed(skip)


def as_identity(node: Any) -> None:
    """Make a node of floats an identity of its first input."""
    node.op = "Identity"
    del node.input[1:]
    for key in set(node.attr) - {"T"}:
        del node.attr[key]
    node.attr["T"].type = require("tensorflow").float32.as_datatype_enum


def as_keras(
    graph: FrozenGraph, shape: tuple[int | None, ...], trained: FrozenGraph | None = None
) -> Any:
    """Return the Keras model around a graph of images of `shape`, [n, h, w, c].

    `trained`: the same graph with the fake quantisation that it was trained with.
    """
    keras = require("keras")
    image = keras.Input(batch_shape=shape, name=INPUT_NAME)
    layer = as_layer(*split(graph), "frozen", trained)
    return keras.Model(image, layer(image), name="saved")


def as_layer(
    graph: FrozenGraph, weights: dict[str, Any], name: str, trained: FrozenGraph | None = None
) -> Any:
    """Return the layer that computes `graph`; `weights` by the names of its placeholders."""
    return _layer_class()(graph, weights, name, trained)


def split(graph: FrozenGraph) -> tuple[FrozenGraph, dict[str, Any]]:
    """Return the graph with placeholders for its weights, and these by name.

    Weights are float32 constants with at least one dimension and two numbers.
    """
    tf = require("tensorflow")
    slim, weights = type(graph.definition)(), {}
    slim.CopyFrom(graph.definition)
    for node in slim.node:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            value = tf.make_ndarray(node.attr["value"].tensor)
            if value.ndim and value.size > 1:
                weights[node.name] = value
                node.op = "Placeholder"
                del node.attr["value"]
    return replace(graph, definition=slim), weights


def node_name(tensor: str) -> str:
    """Return the name of the node that gives a tensor."""
    return tensor.removeprefix("^").partition(":")[0]


def tensor_name(name: str) -> str:
    """Return the full name of a tensor: a node's alone means its first. `^node` stays."""
    return name if ":" in name or name[0] == "^" else f"{name}:0"


def _inputs_of(node: Any) -> set[str]:
    """Return the names of a node's inputs and control inputs."""
    return set(map(node_name, node.input))


@cache
def _layer_class() -> type:
    """Return the class of the layers; Keras is imported only when one is needed."""
    keras, tf = require("keras"), require("tensorflow")

    class Frozen(keras.layers.Layer):  # type: ignore[misc,name-defined]
        def __init__(
            self,
            graph: FrozenGraph,
            weights: dict[str, Any],
            name: str,
            trained: FrozenGraph | None,
        ) -> None:
            super().__init__(name=name)
            self.graph, self.names, self.trained = graph, tuple(weights), trained
            for key, value in weights.items():
                weight = self.add_weight(name=key.replace("/", "_"), shape=value.shape)
                weight.assign(value)
            self.built = True
            self._function = tf.function(self._imported)

        def call(self, image: Any) -> Any:
            # Functions within functions would have to be inlined again by every converter.
            return self._function(image) if tf.executing_eagerly() else self._imported(image)

        def run_input_stage(self, image: Any, kinds: frozenset[str]) -> tuple[list[Any], Any]:
            """Return the graph's leading nodes of `kinds`, and their output for an image."""
            nodes = self.graph.leading(kinds)
            if not nodes:
                return nodes, image
            # What lies behind may hold a batch other than two images.
            extract = tf.compat.v1.graph_util.extract_sub_graph
            definition = extract(self.graph.definition, [nodes[-1].name])
            part = replace(self.graph, definition=definition, output=f"{nodes[-1].name}:0")
            run = tf.function(lambda value: self._imported(value, part), autograph=False)
            return nodes, run(tf.convert_to_tensor(image))

        def _imported(self, image: Any, part: FrozenGraph | None = None) -> Any:
            graph = part or self.graph
            inputs = {graph.input: image}
            present = {node.name for node in graph.definition.node}
            for name, weight in zip(self.names, self.weights, strict=True):
                if name in present:
                    inputs[f"{name}:0"] = tf.convert_to_tensor(weight)
            outputs = [graph.output]
            return tf.graph_util.import_graph_def(graph.definition, inputs, outputs, name="")[0]

        def with_ranges(self) -> Any:
            """Return the layer with the fake quantisation that the graph was trained with."""
            assert self.trained is not None
            return as_layer(*split(self.trained), self.name)

        def graph_kind(self) -> str | None:
            return self.graph.output_kind()

        @property
        def last_operation(self) -> str:
            return f"the operation {self.graph.last_operation()}"

        def without_activation(self) -> Any:
            values = {
                name: weight.numpy() for name, weight in zip(self.names, self.weights, strict=True)
            }
            trained = self.trained and self.trained.without_activation()
            return as_layer(self.graph.without_activation(), values, self.name, trained)

    return Frozen
