"""Take random layers and dead branches out of a frozen graph, as an export may leave them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kedge_convert.load.graph_layer import FrozenGraph, node_name, tensor_name
from kedge_convert.toolkit import require

Varies = Callable[[Any], bool]  # whether a node gives something else each time
# What tells of a tensor's shape alone.
_OF_SHAPE = frozenset({"Rank", "Shape", "ShapeN", "Size"})

_OF_LOOPS = frozenset({"Enter", "LoopCond", "NextIteration"})


def without_dead(graph: FrozenGraph, shape: tuple[int | None, ...], varies: Varies) -> FrozenGraph:
    """Return the graph without the branches that images of `shape`, [n, h, w, c], never take.

    What no size settles stays, as what follows from a node that `varies`.
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
                _hand_on(node, live[0])
        elif node.name in switches:
            _hand_on(node, node.input[0])
        for i, each in enumerate(node.input):
            if node_name(each) in switches and each[0] != "^":
                node.input[i] = node_name(each)

    return graph.changed(settle).pruned()


def _settled(graph: FrozenGraph, shape: tuple[int | None, ...], varies: Varies) -> dict[str, bool]:
    """Return the value of each condition that doesn't depend on what is in an image."""
    if None in shape[1:]:
        return {}
    nodes = {node.name: node for node in graph.definition.node}
    asked = {node.input[1] for node in nodes.values() if node.op == "Switch"}
    fixed = [each for each in sorted(asked) if _is_fixed(nodes, each, graph.picture, varies)]
    return dict(zip(fixed, map(bool, _values(graph, fixed, shape)), strict=True))


def _is_fixed(nodes: dict[str, Any], tensor: str, picture: str, varies: Varies) -> bool:
    """Whether a tensor follows from constants and shapes alone."""
    waiting, seen = [node_name(tensor)], set[str]()
    while waiting:
        node = nodes[name := waiting.pop()]
        if name == node_name(picture) or node.op in _OF_LOOPS or varies(node):
            return False
        if name not in seen and node.op not in _OF_SHAPE:
            waiting += map(node_name, node.input)
        seen.add(name)
    return True


def _values(graph: FrozenGraph, tensors: list[str], shape: tuple[int | None, ...]) -> list[Any]:
    """Return what tensors are for a black image."""
    if not tensors:
        return []
    tf = require("tensorflow")
    extract = tf.compat.v1.graph_util.extract_sub_graph
    names = [*map(node_name, tensors), node_name(graph.picture)]
    definition = extract(graph.definition, names)
    dtype = next(node.attr["dtype"].type for node in definition.node if node.name == names[-1])

    def run(image: Any) -> Any:
        asked = [tensor_name(each) for each in tensors]
        return tf.graph_util.import_graph_def(definition, {graph.picture: image}, asked, name="")

    black = tf.zeros((1, *shape[1:]), dtype)
    return [each.numpy() for each in tf.function(run, autograph=False)(black)]


def _dead(graph: FrozenGraph, tensors: set[str]) -> set[str]:
    """Return the tensors that are never computed, those given among them, and nodes as `^name`."""
    dead, before = set(tensors), -1
    while len(dead) != before:
        before = len(dead)
        for node in graph.definition.node:
            lost = [tensor_name(each) in dead for each in node.input]
            if lost and (all(lost) if node.op == "Merge" else any(lost)):
                dead |= {f"^{node.name}", f"{node.name}:0", f"{node.name}:1"}
    return dead


def _hand_on(node: Any, tensor: str) -> None:
    """Make a node give what a tensor is."""
    node.op = "Identity"
    del node.input[:]
    node.input.append(tensor)
    for key in set(node.attr) - {"T"}:
        del node.attr[key]


# TensorFlow's operations that draw numbers, and what turns a seed into a generator's state.
RANDOM = re.compile(
    r"Random|^Rng|TruncatedNormal|Multinomial|SampleDistorted"
    r"|Stateful(Uniform|StandardNormal)|StatelessShuffle"
)

_OF_FUNCTIONS = ("stateless_", "random_normal", "random_uniform")


class Inseparable(Exception):  # noqa: N818 - the caller makes the user's error of it
    """A random operation, `node`, that belongs to no layer which could be taken out.

    `crops`: it is a RandomCrop, without which the layers behind it get another size than they take.
    """

    def __init__(self, node: Any, *, crops: bool = False) -> None:
        """Take the operation."""
        super().__init__(node.name)
        self.node, self.crops = node, crops


@dataclass(frozen=True)
class Span:
    """A random layer's nodes, all those in `scope`; what reads `given` may read `taken` instead.

    `keeps`: both have the same size.
    """

    scope: str
    taken: str
    given: str
    keeps: bool

    @property
    def layer(self) -> str:
        """The layer's name; functions of TensorFlow's open scopes of their own in it."""
        *before, last = self.scope.split("/")
        return before[-1] if before and last.startswith(_OF_FUNCTIONS) else last


def without_random(graph: FrozenGraph) -> tuple[FrozenGraph, tuple[str, ...]]:
    """Return the graph in which nothing is drawn, and the names of the layers taken out.

    Raises Inseparable where a random operation can't be told from the rest.
    """
    shape = _shape(graph)
    graph = _uncontrolled(without_dead(graph.pruned(), shape, _draws)).pruned()
    tensors, spans = _tensors(graph), list[Span]()
    while drawn := next(filter(_draws, graph.definition.node), None):
        span = next(_spans(graph, drawn, tensors), None)
        if span is None:
            raise Inseparable(drawn)
        graph = _bridged(graph, span).pruned()
        if not (span.keeps or _answers(graph, shape)):
            raise Inseparable(drawn, crops=True)
        spans.append(span)
    return graph, tuple(dict.fromkeys(span.layer for span in spans))


def _spans(graph: FrozenGraph, drawn: Any, tensors: dict[str, Any]) -> Iterator[Span]:
    """Yield the spans that a random operation may belong to, the narrowest scope first."""
    nodes = {node.name: node for node in graph.definition.node}
    pictures = graph.behind(node_name(graph.picture)) | {node_name(graph.picture)}
    random = graph.behind(drawn.name)
    scope = drawn.name
    while scope := scope.rpartition("/")[0]:
        inside = {name for name in nodes if f"{name}/".startswith(f"{scope}/")}
        given = {tensor_name(graph.answer)} | _read(nodes, set(nodes) - inside)
        ends = [each for each in given if node_name(each) in inside & random]
        taken = [each for each in _read(nodes, inside) if node_name(each) in pictures - inside]
        if len(ends) != 1 or _weighs(nodes, inside):
            continue
        alike = [each for each in taken if _fits(tensors[ends[0]], tensors[each])]
        wider = [each for each in taken if _crops(nodes, ends[0], each)]
        if len(alike or wider) == 1:
            yield Span(scope, (alike or wider)[0], ends[0], bool(alike))


def _draws(node: Any) -> bool:
    return bool(RANDOM.search(node.op))


def _crops(nodes: dict[str, Any], given: str, taken: str) -> bool:
    """Whether a tensor is what Keras 3's RandomCrop makes of another: a part of it, resized.

    Out of training that layer hands on the whole image.
    """
    end = nodes[node_name(given)]
    part = nodes[node_name(end.input[0])] if end.op == "ResizeBilinear" else None
    return part is not None and part.op == "StridedSlice" and tensor_name(part.input[0]) == taken


def _answers(graph: FrozenGraph, shape: tuple[int | None, ...]) -> bool:
    """Whether a graph still makes one answer of one image."""
    tf = require("tensorflow")
    with tf.Graph().as_default():
        image = tf.compat.v1.placeholder(_tensors(graph)[graph.picture].dtype, (1, *shape[1:]))
        inputs = {graph.picture: image}
        try:
            (answer,) = tf.graph_util.import_graph_def(
                graph.definition, inputs, [graph.answer], name=""
            )
        except ValueError:  # shapes that don't fit
            return False
    return answer.shape.rank is None or answer.shape[0] in (None, 1)


def _shape(graph: FrozenGraph) -> tuple[int | None, ...]:
    """Return the shape of the picture; all sides are None where the graph doesn't tell."""
    shape = _tensors(graph)[graph.picture].shape
    return (None,) * 4 if shape.rank is None else tuple(shape)


def _read(nodes: dict[str, Any], readers: set[str]) -> set[str]:
    """Return the tensors that some nodes take."""
    return {tensor_name(each) for name in readers for each in nodes[name].input if each[0] != "^"}


def _fits(given: Any, taken: Any) -> bool:
    """Whether what a layer gives may be what it takes; of what it gives, sides may be unknown."""
    if given.dtype != taken.dtype or None in (given.shape.rank, taken.shape.rank):
        return False
    pairs = zip(given.shape.as_list(), taken.shape.as_list(), strict=False)
    same = all(one in (None, other) for one, other in pairs)
    return same and given.shape.rank == taken.shape.rank


def _weighs(nodes: dict[str, Any], inside: set[str]) -> bool:
    """Whether nodes read weights: a scope of the user's own may hold more than random layers."""
    waiting, seen = list(inside), set(inside)
    while waiting:
        node = nodes[waiting.pop()]
        taken = {node_name(each) for each in node.input}
        # Within a scope a variable is known by how it is read, in a graph of TensorFlow 1's.
        own = () if node.op == "Identity" else taken & inside
        if any(map(_is_weight, (nodes[name] for name in taken.difference(own)))):
            return True
        if node.name in inside or node.op == "Identity":
            waiting += taken - seen
            seen |= taken
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
    """Return the graph in which the readers of what a layer gives read what it takes."""

    def bridge(node: Any) -> None:
        for i, each in enumerate(node.input):
            if each[0] != "^" and tensor_name(each) == span.given:
                node.input[i] = span.taken

    changed = graph.changed(bridge)
    return changed.answering(span.taken) if tensor_name(graph.answer) == span.given else changed


def _uncontrolled(graph: FrozenGraph) -> FrozenGraph:
    """Return the graph without control edges; a graph without state needs them for branches only.

    By them Keras has the answer wait for the random layers.
    """
    if any(node.op in ("Switch", "Merge") for node in graph.definition.node):
        return graph

    def drop(node: Any) -> None:
        kept = [each for each in node.input if each[0] != "^"]
        del node.input[:]
        node.input.extend(kept)

    return graph.changed(drop)


def _tensors(graph: FrozenGraph) -> dict[str, Any]:
    """Return the symbolic tensors of a graph by their names."""
    tf = require("tensorflow")
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph.definition, name="")
    return {each.name: each for node in imported.get_operations() for each in node.outputs}
