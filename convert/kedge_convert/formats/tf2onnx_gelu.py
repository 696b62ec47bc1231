"""TFLite's GELU for tf2onnx, which doesn't know it: written out in operators that it knows.

Hendrycks & Gimpel 2016, arXiv:1606.08415: x / 2 * (1 + erf(x / sqrt 2)), or the tanh form.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from kedge_convert.toolkit import require


@cache
def register() -> None:
    """Add the handler to tf2onnx's own, once."""
    require("tf2onnx.handler").tfl_op(["TFL_GELU"])(_Gelu)


class _Gelu:
    @classmethod
    def to_tf(cls, graph: Any, node: Any, **_: Any) -> None:
        """Replace the node."""
        taken, shape = node.input[0], graph.get_shape(node.output[0])
        made = _Maker(graph, graph.get_dtype(taken), shape)
        gate = made.tanh_gate(taken) if node.get_attr_value("approximate") else made.gate(taken)
        output = made("Mul", made("Mul", taken, 0.5), gate)
        graph.replace_all_inputs(node.output[0], output)
        if node.output[0] in graph.outputs:
            graph.outputs[graph.outputs.index(node.output[0])] = output
        graph.remove_node(node.name)


class _Maker:
    """Makes nodes of one shape; numbers become constants."""

    def __init__(self, graph: Any, dtype: Any, shape: Any) -> None:
        self._graph, self._dtype, self._shape = graph, dtype, shape

    def __call__(self, kind: str, *taken: Any) -> str:
        inputs = [self._constant(each) if isinstance(each, float) else each for each in taken]
        node = self._graph.make_node(
            kind, inputs, shapes=[self._shape], dtypes=[self._dtype], skip_conversion=False
        )
        name: str = node.output[0]
        return name

    def gate(self, value: str) -> str:
        return self("Add", self("Erf", self("Mul", value, math.sqrt(0.5))), 1.0)

    def tanh_gate(self, value: str) -> str:
        cube = self("Mul", self("Mul", value, value), self("Mul", value, 0.044715))
        inner = self("Mul", self("Add", value, cube), math.sqrt(2 / math.pi))
        return self("Add", self("Tanh", inner), 1.0)

    def _constant(self, value: float) -> Any:
        utils = require("tf2onnx.utils")
        name = utils.make_name("gelu")
        return self._graph.make_const(name, np.array(value, np.float32)).output[0]
