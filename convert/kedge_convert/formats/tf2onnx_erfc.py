"""TensorFlow's Erfc for tf2onnx, which doesn't know it: 1 - Erf.

Keras computes the exact GELU with it. Where a layer of Keras's own does so, `lowering` writes it
out; this is for what other libraries' layers (keras_hub's Swin) compute inside.
"""

from functools import cache
from typing import Any

import numpy as np

from kedge_convert.toolkit import require


@cache
def register() -> None:
    """Add the handler to tf2onnx's own, once."""
    require("tf2onnx.handler").tf_op("Erfc")(_Erfc)


class _Erfc:
    @classmethod
    def version_9(cls, graph: Any, node: Any, **_: Any) -> None:
        """Replace the node; opset 9 brought Erf."""
        taken, output = node.input[0], node.output[0]
        shape, dtype = graph.get_shape(output), graph.get_dtype(output)
        one = graph.make_const(require("tf2onnx.utils").make_name("one"), np.array(1, np.float32))
        graph.remove_node(node.name)
        erf = graph.make_node("Erf", [taken], shapes=[shape], dtypes=[dtype])
        graph.make_node(
            "Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype]
        )
