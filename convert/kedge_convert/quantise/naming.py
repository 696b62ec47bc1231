"""Find a graph's tensors in a float file, by their values on one image."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.graph import Graph, GraphTensor
from kedge_convert.prepare.running import passing
from kedge_convert.quantise.ranges import Static, StaticOperator
from kedge_runtime.arrays import Floats

SAME = 1e-3  # of a tensor's peak: two engines' float sums differ by far less


@dataclass(frozen=True)
class TensorNames:
    """The names of a graph's tensors in a float file, none for a tensor that is fused."""

    names: dict[GraphTensor, frozenset[str]]
    operators: list[StaticOperator]

    def around(self, tensors: Iterable[GraphTensor]) -> frozenset[str]:
        """Return the names of the operators that write or read any of the tensors.

        Operators that only fused tensors connect to them, such as a ReLU, are included.
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


def tensor_names(graph: Graph, static: Static, floats: bytes, image: Floats) -> TensorNames:
    """Find a graph's tensors in a float file by their values on one image, [1, h, w, 3]."""
    theirs: dict[str, Sketch] = {}
    static.observe(floats, [image], lambda name, value: theirs.update({name: _sketch(value)}))
    names = {}
    for node, values in passing(graph, image):
        own = _sketch(values[node.output])
        names[node.output] = frozenset(name for name, one in theirs.items() if _same(own, one))
    start = _sketch(image)
    names[graph.input] = frozenset(name for name, one in theirs.items() if _same(start, one))
    return TensorNames(names, static.operators(floats))


# A tensor's values in order of size: the same in every layout.
Sketch = NDArray[np.float32]


def _sketch(value: Floats) -> Sketch:
    return np.sort(value, axis=None)


def _same(one: Sketch, other: Sketch) -> bool:
    if one.size != other.size:
        return False
    return bool(np.abs(one - other).max() <= SAME * max(np.abs(one).max(), 1e-6))
