"""Means of what is no image, kept from an integer operator that takes images only.

tf2onnx writes the mean of a layer norm over tokens, [n, tokens, width], as GlobalAveragePool, and
onnxruntime (1.32) quantises that to QLinearGlobalAveragePool, which fails for other than four axes.
"""

from typing import Any

from kedge_convert.toolkit import require

POOL = "GlobalAveragePool"
IMAGE = 4  # axes


def reduced(model: Any) -> Any:
    """Return the ModelProto with such means as ReduceMean; changes it in place."""
    pools = [node for node in model.graph.node if node.op_type == POOL]
    if not pools:
        return model
    onnx = require("onnx")
    graph = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        each.name: len(each.type.tensor_type.shape.dim)
        for each in (*graph.value_info, *graph.input)
        if each.type.tensor_type.HasField("shape")
    }
    for node in pools:
        rank = ranks.get(node.input[0], IMAGE)
        if rank != IMAGE:
            node.op_type = "ReduceMean"
            node.attribute.append(onnx.helper.make_attribute("axes", list(range(2, rank))))
            node.attribute.append(onnx.helper.make_attribute("keepdims", 1))
    return model
