"""Which tensors must share one scale per channel, and who can absorb it.

A factor on a channel passes unchanged through ReLU, pooling, padding, addition and the like. So the
tensors between weighted layers fall into groups; a group whose every writer and reader is a
weighted layer can be scaled channel by channel without changing the model's function.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kedge_convert.prepare.graph import Graph, Node, Tensor

PASSING = frozenset(
    {
        *("ZeroPadding2D", "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D"),
        *("GlobalMaxPooling2D", "Identity", "Reshape", "Flatten", "Add", "Subtract", "Maximum"),
    }
)

Shapes = dict[Tensor, tuple[int, ...]]


@dataclass
class Group:
    """Tensors with one scale per channel. `ceilings`: where a ReLU cuts off, by tensor."""

    tensors: list[Tensor] = field(default_factory=list)
    writers: list[Node] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)
    ceilings: dict[Tensor, float] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Whether every reader can absorb any scale: a depthwise kernel is quantised by channel."""
        return all(kind(reader) == "depthwise" for reader in self.readers)


def groups(graph: Graph, shapes: Shapes) -> list[Group]:
    """Return the groups that can be scaled. `shapes`: of every tensor."""
    union = _Union()
    pinned = {graph.input, graph.output}
    for node in graph.nodes:
        pinned.update(_join(node, shapes, union))
    found: dict[Tensor, Group] = {}
    for tensor in shapes:
        found.setdefault(union.root(tensor), Group()).tensors.append(tensor)
    for node in graph.nodes:
        _enter(node, found, union)
    fixed = {union.root(tensor) for tensor in pinned}
    return [g for root, g in found.items() if root not in fixed and g.writers and g.readers]


def kind(node: Node) -> str:
    """Return a weighted node's kind, or the empty string."""
    return node.weights.kind if node.weights else ""


def ceiling(activation: Any) -> float | None:
    """Return where an activation cuts off: 6 for ReLU6, infinity for ReLU and for none.

    None when a factor does not pass through it at all.
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


def _join(node: Node, shapes: Shapes, union: "_Union") -> Iterable[Tensor]:
    """Join what the node gives one scale; return the tensors that it pins to none."""
    if node.weights is not None:
        scalable = ceiling(node.activation) is not None and _one_to_one(node)
        return (
            () if scalable else (node.output,) if _one_to_one(node) else (*node.inputs, node.output)
        )
    tensors = [*node.inputs, node.output]
    name = type(node.layer).__name__
    if node.constants:
        return tensors
    if name == "Multiply" and len(node.inputs) == 2:
        return _join_gate(node, shapes, union)
    if name in PASSING and len({shapes[tensor][-1] for tensor in tensors}) == 1:
        union.join(tensors)
        return ()
    return tensors


def _join_gate(node: Node, shapes: Shapes, union: "_Union") -> Iterable[Tensor]:
    """A squeeze-and-excite gate multiplies a picture, whose scale passes; the gate is pinned."""

    def area(tensor: Tensor) -> int:
        size = 1
        for length in shapes[tensor][1:-1]:
            size *= length
        return size

    gate, picture = sorted(node.inputs, key=area)
    if area(gate) != 1 or gate == picture or shapes[gate][-1] != shapes[picture][-1]:
        return (*node.inputs, node.output)
    union.join([picture, node.output])
    return (gate,)


def _one_to_one(node: Node) -> bool:
    """Whether output channels and, for depthwise kernels, input channels stand for themselves."""
    assert node.weights is not None
    return node.weights.kind != "depthwise" or node.weights.kernel.shape[3] == 1


def _enter(node: Node, found: dict[Tensor, Group], union: "_Union") -> None:
    if node.weights is None:
        return
    found[union.root(node.inputs[0])].readers.append(node)
    group = found[union.root(node.output)]
    group.writers.append(node)
    group.ceilings[node.output] = ceiling(node.activation) or float("inf")


class _Union:
    """Disjoint sets of tensors."""

    def __init__(self) -> None:
        self._parents: dict[Tensor, Tensor] = {}

    def root(self, tensor: Tensor) -> Tensor:
        while (parent := self._parents.get(tensor, tensor)) != tensor:
            tensor = parent
        return tensor

    def join(self, tensors: list[Tensor]) -> None:
        first = self.root(tensors[0])
        for tensor in tensors[1:]:
            self._parents[self.root(tensor)] = first
