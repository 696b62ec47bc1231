"""TFLite's FULLY_CONNECTED for tf2onnx, which drops its bias where it flattens the input itself.

TensorFlow's converter leaves a Flatten out before a dense layer, so that average pooling, Flatten
and Dense (many a ResNet) come to tf2onnx as FULLY_CONNECTED of four axes.
"""

from functools import cache
from typing import Any

import numpy as np

from kedge_convert.toolkit import require


@cache
def register() -> None:
    """Put the handler in the place of tf2onnx's own, once."""
    stock = require("tf2onnx.tflite_handlers.tfl_math").TflFullyConnectedOp

    class Flattened:
        @classmethod
        def to_tf(cls, graph: Any, node: Any, **others: Any) -> None:
            """Flatten the input first, then replace the node as tf2onnx does."""
            if not node.get_attr_value("keep_num_dims") and graph.get_rank(node.input[0]) != 2:
                graph.replace_input(node, node.input[0], _flat(graph, node), 0)
            stock.to_tf(graph, node, **others)

    require("tf2onnx.handler").tfl_op(["TFL_FULLY_CONNECTED"])(Flattened)


def _flat(graph: Any, node: Any) -> str:
    """Return the name of a dense node's input, [n, inputs]."""
    taken, (_, size) = node.input[0], graph.get_shape(node.input[1])
    name = require("tf2onnx.utils").make_name("flat")
    shape = graph.make_const(name, np.array([-1, size], np.int64)).output[0]
    rows = graph.get_shape(node.output[0])[0]
    made = graph.make_node(
        "Reshape", [taken, shape], shapes=[[rows, size]], dtypes=[graph.get_dtype(taken)]
    )
    output: str = made.output[0]
    return output
