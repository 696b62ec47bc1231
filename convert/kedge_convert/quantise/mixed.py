"""Mixed precision: which activations hurt most as int8, and which operators stay float for them.

An activation stays float when all operators that write or read it do. How much each one hurts is
measured once, in Keras: all float but the one. The same tensors are found in a format's float file
by their values, because fusing and renaming change every name but no value.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_convert.photos import Tick
from kedge_convert.prepare.activations import passing, quantised, rest, simulate
from kedge_convert.prepare.graph import Graph, Node, Tensor
from kedge_convert.quantise.static import Static
from kedge_convert.quantise.static.operators import Operator
from kedge_runtime.head import Floats

SAME = 1e-3  # of a tensor's peak: two engines' float sums differ by far less


@dataclass(frozen=True)
class Part:
    """An activation that can stay float: what int8 costs it, and what float would.

    `noise`: mean squared error of the logits; `layers`: Keras names of who writes and reads it, the
    writer first; `size`: its values and those layers' weights, each of which grows by three bytes.
    """

    tensor: Tensor
    noise: float
    layers: tuple[str, ...]
    size: int


def parts(graph: Graph, pictures: Floats, tick: Tick = lambda: None) -> list[Part]:
    """Return the activations of a graph, those first whose noise is largest for their size.

    `pictures`: float32 [n, h, w, 3]; 16 tell the order well enough. `tick`: called per node.
    """
    wanted = simulate(graph, pictures, integer=False)
    found = []
    for i, (node, values) in enumerate(passing(graph, pictures)):
        own = values[node.output]
        spoilt = {**values, node.output: quantised(node, own.copy())}
        answers = rest(graph, spoilt, i + 1)
        noise = float(np.square(answers - wanted, dtype=np.float64).mean())
        found.append(_part(graph, node, noise, own[0].size))
        tick()
    noisy = [part for part in found if part.noise > 0]
    return sorted(noisy, key=lambda part: part.noise / part.size, reverse=True)


def _part(graph: Graph, node: Node, noise: float, values: int) -> Part:
    around = [node, *(each for each in graph.nodes if node.output in each.inputs)]
    names = tuple(dict.fromkeys(each.layer.name for each in around))
    weights = sum(each.weights.kernel.size for each in around if each.weights)
    return Part(node.output, noise, names, values + weights)


@dataclass(frozen=True)
class Places:
    """Where a graph's tensors are in a float file: the names of each, none where it is fused."""

    names: dict[Tensor, frozenset[str]]
    operators: list[Operator]

    def around(self, tensors: Iterable[Tensor]) -> frozenset[str]:
        """Return the names of the operators that write or read any of the tensors.

        Those that only fused tensors connect to them, such as a ReLU and its convolution, included.
        """
        known = frozenset[str]().union(*self.names.values())
        open_names = frozenset[str]().union(*(self.names.get(each, ()) for each in tensors))
        found: set[str] = set()
        while True:
            touched = [each for each in self.operators if open_names & each.tensors]
            if found.issuperset(each.name for each in touched):
                return frozenset(found)
            found.update(each.name for each in touched)
            open_names |= frozenset[str]().union(*(each.tensors for each in touched)) - known


def places(graph: Graph, static: Static, floats: bytes, picture: Floats) -> Places:
    """Find a graph's tensors in a float file by their values on one picture, [1, h, w, 3]."""
    theirs: dict[str, Sketch] = {}
    static.observe(floats, [picture], lambda name, value: theirs.update({name: _sketch(value)}))
    names = {}
    for node, values in passing(graph, picture):
        own = _sketch(values[node.output])
        names[node.output] = frozenset(name for name, one in theirs.items() if _same(own, one))
    start = _sketch(picture)
    names[graph.input] = frozenset(name for name, one in theirs.items() if _same(start, one))
    return Places(names, static.operators(floats))


# A tensor's values in order of size: the same in every layout.
Sketch = NDArray[np.float32]


def _sketch(value: Floats) -> Sketch:
    return np.sort(value, axis=None)


def _same(one: Sketch, other: Sketch) -> bool:
    if one.size != other.size:
        return False
    return bool(np.abs(one - other).max() <= SAME * max(np.abs(one).max(), 1e-6))
