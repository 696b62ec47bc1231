"""Take random layers and dead branches out of a frozen graph, as an export may leave them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.load.graph_layer import FrozenGraph, node_name, tensor_name
from kedge_convert.toolkit import require

Varies = Callable[[Any], bool]  # whether a node's output changes from call to call
# Operations that depend on a tensor's shape alone.
_OF_SHAPE = frozenset({"Rank", "Shape", "ShapeN", "Size"})

_OF_LOOPS = frozenset({"Enter", "LoopCond", "NextIteration"})


def without_dead(graph: FrozenGraph, shape: tuple[int | None, ...], varies: Varies) -> FrozenGraph:
    """Return the graph without the branches that images of `shape`, [n, h, w, c], never take.

    Conditions that depend on more than the size stay, as on a node that `varies`.
    """
    settled = _settled(graph, shape, varies)
    if not settled:
        return graph
    switches = {
        node.name: settled[node.input[1]]
        for node in graph.definition.node
        if node.op == "Switch" and node.input[1] in settled
    }
    dead = _dead(graph, {f"{name}:{int(not taken)}" for name, taken in switches.items()})

    def settle(node: Any) -> None:
        if node.op == "Merge":
            values = [each for each in node.input if each[0] != "^"]
            live = [each for each in values if tensor_name(each) not in dead]
            if len(live) == 1:
                _as_identity_of(node, live[0])
        elif node.name in switches:
            _as_identity_of(node, node.input[0])
        for i, each in enumerate(node.input):
            if node_name(each) in switches and each[0] != "^":
                node.input[i] = node_name(each)

    return graph.changed(settle).pruned()


def _settled(graph: FrozenGraph, shape: tuple[int | None, ...], varies: Varies) -> dict[str, bool]:
    """Return the value of each condition that doesn't depend on an image's content."""
    if None in shape[1:]:
        return {}
    nodes = {node.name: node for node in graph.definition.node}
    conditions = {node.input[1] for node in nodes.values() if node.op == "Switch"}
    fixed = [each for each in sorted(conditions) if _is_fixed(nodes, each, graph.input, varies)]
    return dict(zip(fixed, map(bool, _values(graph, fixed, shape)), strict=True))


def _is_fixed(nodes: dict[str, Any], tensor: str, image: str, varies: Varies) -> bool:
    """Whether a tensor depends on constants and shapes alone."""
    waiting, seen = [node_name(tensor)], set[str]()
    while waiting:
        node = nodes[name := waiting.pop()]
        if name == node_name(image) or node.op in _OF_LOOPS or varies(node):
            return False
        if name not in seen and node.op not in _OF_SHAPE:
            waiting += map(node_name, node.input)
        seen.add(name)
    return True


def _values(graph: FrozenGraph, tensors: list[str], shape: tuple[int | None, ...]) -> list[Any]:
    """Return the values of tensors for a black image."""
    if not tensors:
        return []
    tf = require("tensorflow")
    extract = tf.compat.v1.graph_util.extract_sub_graph
    names = [*map(node_name, tensors), node_name(graph.input)]
    definition = extract(graph.definition, names)
    dtype = next(node.attr["dtype"].type for node in definition.node if node.name == names[-1])

    def run(image: Any) -> Any:
        outputs = [tensor_name(each) for each in tensors]
        return tf.graph_util.import_graph_def(definition, {graph.input: image}, outputs, name="")

    black = tf.zeros((1, *shape[1:]), dtype)
    return [each.numpy() for each in tf.function(run, autograph=False)(black)]


def _dead(graph: FrozenGraph, tensors: set[str]) -> set[str]:
    """Return the tensors that are never computed, `tensors` included, and nodes as `^name`."""
    dead, before = set(tensors), -1
    while len(dead) != before:
        before = len(dead)
        for node in graph.definition.node:
            lost = [tensor_name(each) in dead for each in node.input]
            if lost and (all(lost) if node.op == "Merge" else any(lost)):
                dead |= {f"^{node.name}", f"{node.name}:0", f"{node.name}:1"}
    return dead


def _as_identity_of(node: Any, tensor: str) -> None:
    """Make a node the identity of a tensor."""
    node.op = "Identity"
    del node.input[:]
    node.input.append(tensor)
    for key in set(node.attr) - {"T"}:
        del node.attr[key]


# TensorFlow's operations that draw numbers, or turn a seed into a generator's state.
RANDOM = re.compile(
    r"Random|^Rng|TruncatedNormal|Multinomial|SampleDistorted"
    r"|Stateful(Uniform|StandardNormal)|StatelessShuffle"
)

_OF_FUNCTIONS = ("stateless_", "random_normal", "random_uniform")


class Inseparable(Exception):  # noqa: N818 - the caller makes the user's error of it
    """A random operation, `node`, outside any layer that could be taken out.

    `crops`: it is a RandomCrop, without which the layers behind it get another size than they take.
    """

    def __init__(self, node: Any, *, crops: bool = False) -> None:
        """Keep the operation for the message."""
        super().__init__(node.name)
        self.node, self.crops = node, crops


@dataclass(frozen=True)
class Span:
    """A random layer's nodes, all those in `scope`; readers of `output` may read `input` instead.

    `keeps_size`: both have the same size.
    """

    scope: str
    input: str
    output: str
    keeps_size: bool

    @property
    def layer(self) -> str:
        """The layer's name; functions of TensorFlow's open scopes of their own in it."""
        *before, last = self.scope.split("/")
        return before[-1] if before and last.startswith(_OF_FUNCTIONS) else last


def without_random(graph: FrozenGraph) -> tuple[FrozenGraph, tuple[str, ...]]:
    """Return the graph without random operations, and the names of the layers taken out.

    Raises Inseparable where a random operation can't be separated from the rest.
    """
    shape = _shape(graph)
    graph = _uncontrolled(without_dead(graph.pruned(), shape, _draws)).pruned()
    tensors, spans = _tensors(graph), list[Span]()
    while drawn := next(filter(_draws, graph.definition.node), None):
        span = next(_spans(graph, drawn, tensors), None)
        if span is None:
            raise Inseparable(drawn)
        graph = _bridged(graph, span).pruned()
        if not (span.keeps_size or _is_valid(graph, shape)):
            raise Inseparable(drawn, crops=True)
        spans.append(span)
    return graph, tuple(dict.fromkeys(span.layer for span in spans))


def _spans(graph: FrozenGraph, drawn: Any, tensors: dict[str, Any]) -> Iterator[Span]:
    """Yield the spans that a random operation may belong to, the narrowest scope first."""
    nodes = {node.name: node for node in graph.definition.node}
    images = graph.downstream(node_name(graph.input)) | {node_name(graph.input)}
    random = graph.downstream(drawn.name)
    scope = drawn.name
    while scope := scope.rpartition("/")[0]:
        inside = {name for name in nodes if f"{name}/".startswith(f"{scope}/")}
        read = {tensor_name(graph.output)} | _read(nodes, set(nodes) - inside)
        outputs = [each for each in read if node_name(each) in inside & random]
        inputs = [each for each in _read(nodes, inside) if node_name(each) in images - inside]
        if len(outputs) != 1 or _reads_weights(nodes, inside):
            continue
        alike = [each for each in inputs if _fits(tensors[outputs[0]], tensors[each])]
        wider = [each for each in inputs if _crops(nodes, outputs[0], each)]
        if len(alike or wider) == 1:
            yield Span(scope, (alike or wider)[0], outputs[0], bool(alike))


def _draws(node: Any) -> bool:
    return bool(RANDOM.search(node.op))


def _crops(nodes: dict[str, Any], cropped: str, image: str) -> bool:
    """Whether a tensor is the output of Keras 3's RandomCrop: a part of the image, resized.

    Out of training that layer returns the whole image.
    """
    last = nodes[node_name(cropped)]
    part = nodes[node_name(last.input[0])] if last.op == "ResizeBilinear" else None
    return part is not None and part.op == "StridedSlice" and tensor_name(part.input[0]) == image


def _is_valid(graph: FrozenGraph, shape: tuple[int | None, ...]) -> bool:
    """Whether a graph still gives one output for one image."""
    tf = require("tensorflow")
    with tf.Graph().as_default():
        image = tf.compat.v1.placeholder(_tensors(graph)[graph.input].dtype, (1, *shape[1:]))
        inputs = {graph.input: image}
        try:
            (output,) = tf.graph_util.import_graph_def(
                graph.definition, inputs, [graph.output], name=""
            )
        except ValueError:  # shapes that don't fit
            return False
    return output.shape.rank is None or output.shape[0] in (None, 1)


def _shape(graph: FrozenGraph) -> tuple[int | None, ...]:
    """Return the shape of the input; all sides are None where the graph doesn't state it."""
    shape = _tensors(graph)[graph.input].shape
    return (None,) * 4 if shape.rank is None else tuple(shape)


def _read(nodes: dict[str, Any], readers: set[str]) -> set[str]:
    """Return the inputs of some nodes."""
    return {tensor_name(each) for name in readers for each in nodes[name].input if each[0] != "^"}


def _fits(output: Any, input_: Any) -> bool:
    """Whether a layer's output can replace its input; the output's sides may be unknown."""
    if output.dtype != input_.dtype or None in (output.shape.rank, input_.shape.rank):
        return False
    pairs = zip(output.shape.as_list(), input_.shape.as_list(), strict=False)
    same = all(one in (None, other) for one, other in pairs)
    return same and output.shape.rank == input_.shape.rank


def _reads_weights(nodes: dict[str, Any], inside: set[str]) -> bool:
    """Whether nodes read weights: a scope of the user's own may hold more than random layers."""
    waiting, seen = list(inside), set(inside)
    while waiting:
        node = nodes[waiting.pop()]
        inputs = {node_name(each) for each in node.input}
        # In a graph of TensorFlow 1, an Identity reads the variables of its own scope.
        own = () if node.op == "Identity" else inputs & inside
        if any(map(_is_weight, (nodes[name] for name in inputs.difference(own)))):
            return True
        if node.name in inside or node.op == "Identity":
            waiting += inputs - seen
            seen |= inputs
    return False


def _is_weight(node: Any) -> bool:
    """Whether a node is a constant of several floats."""
    if node.op != "Const":
        return False
    tensor = node.attr["value"].tensor
    sides = [side.size for side in tensor.tensor_shape.dim]
    floating: bool = require("tensorflow").as_dtype(tensor.dtype).is_floating
    return floating and max(sides, default=1) > 1


def _bridged(graph: FrozenGraph, span: Span) -> FrozenGraph:
    """Return the graph in which the readers of a layer's output read its input."""

    def bridge(node: Any) -> None:
        for i, each in enumerate(node.input):
            if each[0] != "^" and tensor_name(each) == span.output:
                node.input[i] = span.input

    changed = graph.changed(bridge)
    is_last = tensor_name(graph.output) == span.output
    return replace(changed, output=span.input) if is_last else changed


def _uncontrolled(graph: FrozenGraph) -> FrozenGraph:
    """Return the graph without control edges; a graph without state needs them for branches only.

    Keras uses them to make the output wait for the random layers.
    """
    if any(node.op in ("Switch", "Merge") for node in graph.definition.node):
        return graph

    def drop(node: Any) -> None:
        inputs = [each for each in node.input if each[0] != "^"]
        del node.input[:]
        node.input.extend(inputs)

    return graph.changed(drop)


def _tensors(graph: FrozenGraph) -> dict[str, Any]:
    """Return the symbolic tensors of a graph by their names."""
    tf = require("tensorflow")
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph.definition, name="")
    return {each.name: each for node in imported.get_operations() for each in node.outputs}
