"""A TensorFlow graph as a Keras layer, so that everything downstream meets a Keras model.

The graph's large constants become the layer's weights, which are counted, hashed and exported like
any other's.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from kedge_convert.toolkit import require

# Operations that hand on the numbers they are given, one for one.
HANDING_ON = frozenset({"Identity", "Reshape", "Squeeze"})
# The operation that gives the numbers -> what they are. Others: only the numbers can tell.
ENDS = {
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
class Graph:
    """A flat GraphDef without variables. `picture` and `answer` are its ends' names, `conv:0`."""

    definition: Any
    picture: str
    answer: str

    def readers(self, name: str) -> list[Any]:
        """Return the nodes that take what a node gives."""
        return [node for node in self.definition.node if name in _taken(node)]

    def beginning(self, kinds: frozenset[str]) -> list[Any]:
        """Return the nodes by which the picture goes, in order, while all are of `kinds`."""
        begun, found = {node_name(self.picture)}, list[Any]()
        reached = self._reached()
        names = begun | {node.name for node in reached}
        while ready := [
            node
            for node in reached
            if node.op in kinds and node.name not in begun and _taken(node) & names <= begun
        ]:
            found += ready
            begun |= {node.name for node in ready}
        return found

    def _reached(self) -> list[Any]:
        """Return the nodes that the picture has a part in."""
        readers = defaultdict[str, list[Any]](list)
        for node in self.definition.node:
            for name in _taken(node):
                readers[name].append(node)
        waiting, reached = [node_name(self.picture)], dict[str, Any]()
        while waiting:
            new = [node for node in readers[waiting.pop()] if node.name not in reached]
            reached |= {node.name: node for node in new}
            waiting += [node.name for node in new]
        return list(reached.values())

    def end(self) -> Any:
        """Return the node that gives the answer's numbers, behind what only hands them on."""
        nodes = {node.name: node for node in self.definition.node}
        node = nodes[node_name(self.answer)]
        while node.op in HANDING_ON:
            node = nodes[node_name(node.input[0])]
        return node

    def kind(self) -> str | None:
        """Return what the answer is by the operation that gives it; None where that can't tell."""
        return ENDS.get(self.end().op)

    def without_activation(self) -> "Graph":
        """Return the graph whose last softmax or sigmoid hands on what it is given.

        Exact, whatever follows: behind it nothing but changes of shape lies before the answer.
        """
        name = self.end().name
        changed = type(self.definition)()
        changed.CopyFrom(self.definition)
        (node,) = (node for node in changed.node if node.name == name)
        node.op = "Identity"
        for key in set(node.attr) - {"T"}:
            del node.attr[key]
        return replace(self, definition=changed)


def as_layer(graph: Graph, weights: dict[str, Any], name: str) -> Any:
    """Return the layer that computes `graph`; `weights` by the names of its placeholders."""
    return _layer_class()(graph, weights, name)


def as_model(graph: Graph, shape: tuple[int | None, ...]) -> Any:
    """Return the Keras model around a graph that takes images of `shape`, [n, h, w, c]."""
    keras = require("keras")
    slim, weights = split(graph)
    picture = keras.Input(batch_shape=shape, name="picture")
    return keras.Model(picture, as_layer(slim, weights, "frozen")(picture), name="saved")


def split(graph: Graph) -> tuple[Graph, dict[str, Any]]:
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
    """Return the node that gives a tensor."""
    return tensor.removeprefix("^").partition(":")[0]


def _taken(node: Any) -> set[str]:
    """Return the names of the nodes that a node takes something from, or waits for."""
    return set(map(node_name, node.input))


@cache
def _layer_class() -> type:
    """Return the class of the layers; Keras is imported only when one is wanted."""
    keras, tf = require("keras"), require("tensorflow")

    class Frozen(keras.layers.Layer):  # type: ignore[misc,name-defined]
        def __init__(self, graph: Graph, weights: dict[str, Any], name: str) -> None:
            super().__init__(name=name)
            self.graph, self.names = graph, tuple(weights)
            for key, value in weights.items():
                weight = self.add_weight(name=key.replace("/", "_"), shape=value.shape)
                weight.assign(value)
            self.built = True
            self._alone = tf.function(self._imported)

        def call(self, picture: Any) -> Any:
            # Functions within functions would have to be inlined again by every converter.
            return self._alone(picture) if tf.executing_eagerly() else self._imported(picture)

        def begin(self, picture: Any, kinds: frozenset[str]) -> tuple[list[Any], Any]:
            """Return the nodes of the graph's beginning, and what they make of a picture."""
            nodes = self.graph.beginning(kinds)
            if not nodes:
                return nodes, picture
            # What lies behind may hold a batch that two pictures aren't.
            extract = tf.compat.v1.graph_util.extract_sub_graph
            definition = extract(self.graph.definition, [nodes[-1].name])
            part = replace(self.graph, definition=definition, answer=f"{nodes[-1].name}:0")
            run = tf.function(lambda given: self._imported(given, part), autograph=False)
            return nodes, run(tf.convert_to_tensor(picture))

        def _imported(self, picture: Any, part: Graph | None = None) -> Any:
            graph = part or self.graph
            inputs = {graph.picture: picture}
            there = {node.name for node in graph.definition.node}
            for name, weight in zip(self.names, self.weights, strict=True):
                if name in there:
                    inputs[f"{name}:0"] = tf.convert_to_tensor(weight)
            wanted = [graph.answer]
            return tf.graph_util.import_graph_def(graph.definition, inputs, wanted, name="")[0]

        def graph_kind(self) -> str | None:
            return self.graph.kind()

        @property
        def end_word(self) -> str:
            return f"the operation {self.graph.end().op}"

        def without_activation(self) -> Any:
            values = {
                name: weight.numpy() for name, weight in zip(self.names, self.weights, strict=True)
            }
            return as_layer(self.graph.without_activation(), values, self.name)

    return Frozen
