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

# Quantise and dequantise at once, as a model trained for int8 does (fake_quant.py).
FAKE_QUANT = frozenset(
    {
        "FakeQuantWithMinMaxArgs",
        "FakeQuantWithMinMaxVars",
        "FakeQuantWithMinMaxVarsPerChannel",
    }
)
# Operations that hand on the numbers they are given, one for one.
HANDING_ON = frozenset({"Identity", "Reshape", "Squeeze"}) | FAKE_QUANT
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
class FrozenGraph:
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
        names = self.behind(node_name(self.picture))
        return [node for node in self.definition.node if node.name in names]

    def behind(self, name: str) -> set[str]:
        """Return the names of the nodes that a node has a part in, but its own."""
        readers = defaultdict[str, list[str]](list)
        for node in self.definition.node:
            for each in _taken(node):
                readers[each].append(node.name)
        waiting, reached = [name], set[str]()
        while waiting:
            new = set(readers[waiting.pop()]) - reached
            reached |= new
            waiting += new
        return reached

    def taking(self, node: Any) -> "FrozenGraph":
        """Return the graph whose picture is what a placeholder gives."""
        return replace(self, picture=f"{node.name}:0")

    def answering(self, tensor: str) -> "FrozenGraph":
        """Return the graph whose answer is another tensor."""
        return replace(self, answer=tensor)

    def pruned(self) -> "FrozenGraph":
        """Return the graph without the nodes that the answer doesn't need."""
        extract = require("tensorflow").compat.v1.graph_util.extract_sub_graph
        return replace(self, definition=extract(self.definition, [node_name(self.answer)]))

    def changed(self, change: Callable[[Any], None]) -> "FrozenGraph":
        """Return a copy of the graph; `change` is called with each node of it."""
        definition = type(self.definition)()
        definition.CopyFrom(self.definition)
        for node in definition.node:
            change(node)
        return replace(self, definition=definition)

    def end(self) -> Any:
        """Return the node that gives the answer's numbers, behind what only hands them on."""
        return self._last_nodes()[-1]

    def last_range(self) -> tuple[str, str] | None:
        """Return the tensors of the answer's least and largest number; None without a range."""
        ranged = [node for node in self._last_nodes() if node.op == "FakeQuantWithMinMaxVars"]
        return (ranged[0].input[1], ranged[0].input[2]) if ranged else None

    def _last_nodes(self) -> list[Any]:
        """Return the nodes from the answer back to the one that gives its numbers."""
        nodes = {node.name: node for node in self.definition.node}
        passed = [nodes[node_name(self.answer)]]
        while passed[-1].op in HANDING_ON:
            passed.append(nodes[node_name(passed[-1].input[0])])
        return passed

    def kind(self) -> str | None:
        """Return what the answer is by the operation that gives it; None where that can't tell."""
        return ENDS.get(self.end().op)

    def without_activation(self) -> "FrozenGraph":
        """Return the graph whose last softmax or sigmoid hands on what it is given.

        Exact, whatever follows: behind it nothing but changes of shape lies before the answer.
        """
        passed = self._last_nodes()
        # A range behind the activation is one of probabilities.
        names = {node.name for node in passed if node.op in FAKE_QUANT} | {passed[-1].name}

        def hand_on(node: Any) -> None:
            if node.name in names:
                as_identity(node)

        return self.changed(hand_on)


def as_identity(node: Any) -> None:
    """Make a node of floats hand on the first tensor that it takes."""
    node.op = "Identity"
    del node.input[1:]
    for key in set(node.attr) - {"T"}:
        del node.attr[key]
    node.attr["T"].type = require("tensorflow").float32.as_datatype_enum


def as_keras(
    graph: FrozenGraph, shape: tuple[int | None, ...], trained: FrozenGraph | None = None
) -> Any:
    """Return the Keras model around a graph of pictures of `shape`, [n, h, w, c].

    `trained`: the same graph with the fake quantisation that it was trained with.
    """
    keras = require("keras")
    picture = keras.Input(batch_shape=shape, name="picture")
    layer = as_layer(*split(graph), "frozen", trained)
    return keras.Model(picture, layer(picture), name="saved")


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
    """Return the node that gives a tensor."""
    return tensor.removeprefix("^").partition(":")[0]


def tensor_name(name: str) -> str:
    """Return the full name of a tensor: a node's alone means its first. `^node` stays."""
    return name if ":" in name or name[0] == "^" else f"{name}:0"


def _taken(node: Any) -> set[str]:
    """Return the names of the nodes that a node takes something from, or waits for."""
    return set(map(node_name, node.input))


@cache
def _layer_class() -> type:
    """Return the class of the layers; Keras is imported only when one is wanted."""
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

        def _imported(self, picture: Any, part: FrozenGraph | None = None) -> Any:
            graph = part or self.graph
            inputs = {graph.picture: picture}
            there = {node.name for node in graph.definition.node}
            for name, weight in zip(self.names, self.weights, strict=True):
                if name in there:
                    inputs[f"{name}:0"] = tf.convert_to_tensor(weight)
            wanted = [graph.answer]
            return tf.graph_util.import_graph_def(graph.definition, inputs, wanted, name="")[0]

        def with_ranges(self) -> Any:
            """Return the layer with the fake quantisation that the graph was trained with."""
            assert self.trained is not None
            return as_layer(*split(self.trained), self.name)

        def graph_kind(self) -> str | None:
            return self.graph.kind()

        @property
        def end_word(self) -> str:
            return f"the operation {self.graph.end().op}"

        def without_activation(self) -> Any:
            values = {
                name: weight.numpy() for name, weight in zip(self.names, self.weights, strict=True)
            }
            trained = self.trained and self.trained.without_activation()
            return as_layer(self.graph.without_activation(), values, self.name, trained)

    return Frozen
