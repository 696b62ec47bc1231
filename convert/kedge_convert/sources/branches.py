"""Branches of a frozen graph that no image takes, taken out: a layer's for training, mostly.

Keras 2's RandomCrop asks `training` and the size in the graph itself. Where constants and the size
of the images settle a condition, only the branch that is taken stays.
"""

from collections.abc import Callable
from typing import Any

from kedge_convert.sources.frozen import Graph, node_name, tensor_name
from kedge_convert.toolkit import require

Varies = Callable[[Any], bool]  # whether a node gives something else each time
# What tells of a tensor's shape alone.
_OF_SHAPE = frozenset({"Rank", "Shape", "ShapeN", "Size"})

_OF_LOOPS = frozenset({"Enter", "LoopCond", "NextIteration"})


def without_dead(graph: Graph, shape: tuple[int | None, ...], varies: Varies) -> Graph:
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


def _settled(graph: Graph, shape: tuple[int | None, ...], varies: Varies) -> dict[str, bool]:
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


def _values(graph: Graph, tensors: list[str], shape: tuple[int | None, ...]) -> list[Any]:
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


def _dead(graph: Graph, tensors: set[str]) -> set[str]:
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
