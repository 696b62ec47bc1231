"""Bring an ONNX graph into one canonical form, with its weights put back."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.toolkit import require

INPUT, OUTPUT = "input", "logits"
COUNTERS = re.compile(r"__\d+|:0$")


def canonical(model: Any) -> Any:
    """Return `model` with fixed names of input and output, sorted nodes, names without counters.

    Nodes and weights that nothing needs are dropped. Raises ValueError for a graph without one
    input and one output.
    """
    graph = model.graph
    (source,), (result,) = graph.input, graph.output
    nodes = list(_in_order(graph))
    weights = {each.name: each for each in graph.initializer}
    names = _Renaming({source.name: INPUT, result.name: OUTPUT})
    order = dict.fromkeys(name for node in nodes for name in node.input if name in weights)
    for node in nodes:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.name = node.output[0]
    kept = [weights[name] for name in order]
    for each in (*kept, source, result):
        each.name = names[each.name]
    for field, content in ((graph.node, nodes), (graph.initializer, kept), (graph.value_info, ())):
        del field[:]
        field.extend(content)
    graph.name, graph.doc_string, model.doc_string = "kedge", "", ""
    return model


class _Renaming:
    """New names by old ones, given when first asked for."""

    def __init__(self, fixed: dict[str, str]) -> None:
        self._new = {"": "", **fixed}
        self._taken = dict.fromkeys(self._new.values(), 1)

    def __getitem__(self, old: str) -> str:
        if old not in self._new:
            self._new[old] = self._free(COUNTERS.sub("", old) or "value")
        return self._new[old]

    def _free(self, base: str) -> str:
        count = self._taken[base] = self._taken.get(base, 0) + 1
        name = base if count == 1 else f"{base}.{count}"
        return name if name == base or name not in self._taken else self._free(base)


def _in_order(graph: Any) -> Iterator[Any]:
    """Yield the nodes that the output needs, each after those that it needs, by their structure."""
    makers = {name: node for node in graph.node for name in node.output}
    done: set[int] = set()
    stack = [makers[each.name] for each in graph.output]
    while stack:
        node = stack[-1]
        needed = [makers[name] for name in node.input if name in makers]
        waiting = [each for each in needed if id(each) not in done]
        if waiting:
            stack.append(waiting[0])
            continue
        stack.pop()
        if id(node) not in done:
            done.add(id(node))
            yield node


LARGE = 256  # numbers; what is smaller may be looked at (strides, paddings, scalars)


def put_back(model: Any, hidden: Mapping[str, NDArray[Any]]) -> Any:
    """Return `model` with its inputs called as in `hidden` filled in and folded.

    tf2onnx turns a kernel by a Transpose in front of its convolution; that is done here, once.
    """
    numpy_helper = require("onnx.numpy_helper")
    graph = model.graph
    constants = dict(hidden) | {
        each.name: numpy_helper.to_array(each) for each in graph.initializer
    }
    inputs = [each for each in graph.input if each.name not in hidden]
    left = [node for node in graph.node if not _folded(node, constants)]
    used = {name for node in left for name in node.input} | {each.name for each in graph.output}
    for field, kept in ((graph.node, left), (graph.input, inputs), (graph.initializer, ())):
        del field[:]
        field.extend(kept)
    for name in [name for name in constants if name in used]:
        graph.initializer.append(numpy_helper.from_array(constants.pop(name), name))
    return model


def _folded(node: Any, constants: dict[str, NDArray[Any]]) -> bool:
    """Compute a node of constants only, and say whether it was one."""
    if not node.input or not all(name in constants for name in node.input if name):
        return False
    evaluator = require("onnx.reference").ReferenceEvaluator(node)
    values = evaluator.run(None, {name: constants[name] for name in node.input if name})
    constants.update(zip(node.output, map(np.ascontiguousarray, values), strict=True))
    return True
