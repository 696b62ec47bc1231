"""ONNX with weights in float16: the float file, its kernels behind a Cast each.

Engines on a CPU compute in float32 anyway, and fold the casts when they load the file.
"""

from typing import Any

from kedge_convert.formats.halves import half
from kedge_convert.toolkit import require

KERNEL = 1  # its place among a node's inputs
HALVED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def halved(content: bytes) -> bytes:
    """Return a float model with its kernels in float16; inputs, outputs and sums stay float32."""
    onnx = require("onnx")
    model = onnx.load_from_string(content)
    graph = model.graph
    kernels = {node.input[KERNEL] for node in graph.node if _is_halved(node, onnx)}
    casts = [cast for each in graph.initializer if (cast := _halve(each, kernels, onnx))]
    widened = {cast.input[0]: cast.output[0] for cast in casts}
    for node in graph.node:
        if node.op_type in HALVED:
            node.input[:] = [widened.get(name, name) for name in node.input]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _is_halved(node: Any, onnx: Any) -> bool:
    """Whether its kernel is; a depthwise convolution's stays (`halves.py`)."""
    groups = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return node.op_type in HALVED and groups.get("group", 1) == 1


def _halve(initializer: Any, kernels: set[str], onnx: Any) -> Any:
    """Store an initialiser as float16; return the Cast that widens it, or None."""
    if initializer.name not in kernels or initializer.data_type != onnx.TensorProto.FLOAT:
        return None
    rounded = half(onnx.numpy_helper.to_array(initializer))
    if rounded is None:
        return None
    initializer.CopyFrom(onnx.numpy_helper.from_array(rounded, initializer.name))
    wide = f"{initializer.name}_float32"
    return onnx.helper.make_node(
        "Cast", [initializer.name], [wide], name=wide, to=onnx.TensorProto.FLOAT
    )
