"""Build an ONNX graph: nodes in order, constants by name, constant nodes computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.toolkit import require

Array = NDArray[Any]

PART = "//"  # between the name of a tensor and that of a part of its computation


class GraphBuilder:
    """Nodes and constants so far; every name is used once."""

    def __init__(self) -> None:
        """Start empty."""
        self.constants: dict[str, Array] = {}
        self._nodes: list[Any] = []
        self._made: dict[str, Any] = {}

    def constant(self, name: str, values: Array) -> str:
        """Add a constant under its name, unless it is there; return the name."""
        self.constants.setdefault(name, values)
        return name

    def numbers(self, values: Any, dtype: Any = np.int64, use: str = "") -> str:
        """Return the name of a small constant, equal ones only once.

        `use`: what equal constants of another use are not shared with.
        """
        array = np.asarray(values, dtype)
        return self.constant(f"{use or array.dtype.name}{PART}{array.tolist()}", array)

    def node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Append a node; compute it instead where all its inputs are constants."""
        outputs = list(outputs)
        made = require("onnx").helper.make_node(
            kind, inputs, outputs, name=outputs[0], **attributes
        )
        if all(name in self.constants for name in inputs if name):
            evaluator = require("onnx.reference").ReferenceEvaluator(made)
            values = evaluator.run(None, {name: self.constants[name] for name in inputs if name})
            self.constants.update(zip(outputs, map(np.asarray, values), strict=True))
            return
        self._nodes.append(made)
        self._made.update(dict.fromkeys(outputs, made))

    def free(self, name: str) -> str:
        """Return a name that nothing has: `name`, or it with a number."""
        taken = self._made.keys() | self.constants.keys()
        numbered = (f"{name}.{count}" for count in range(2, 2 + len(taken)))
        return next(each for each in (name, *numbered) if each not in taken)

    def is_made(self, name: str) -> bool:
        """Whether a node makes this value."""
        return name in self._made

    def rename(self, old: str, new: str) -> None:
        """Rename a value that no node reads yet."""
        node = self._made[new] = self._made.pop(old)
        node.output[:] = [new if name == old else name for name in node.output]
        node.name = node.output[0]

    def needed(self, output: str) -> list[Any]:
        """Return the nodes that a value depends on, in order."""
        wanted, kept = {output}, list[Any]()
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        return kept[::-1]

    def fill(self, graph: Any) -> None:
        """Add the constants that a GraphProto's nodes read, in their order.

        In place: a TensorProto of its own for each would be another copy of it.
        """
        helper = require("onnx").helper
        names = dict.fromkeys(name for node in graph.node for name in node.input)
        for name in filter(self.constants.__contains__, names):
            values, tensor = self.constants[name], graph.initializer.add()
            tensor.name, tensor.data_type = name, helper.np_dtype_to_tensor_dtype(values.dtype)
            tensor.dims.extend(values.shape)
            tensor.raw_data = values.tobytes()
