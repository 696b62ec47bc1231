"""Two ways from Keras to ONNX, both with tf2onnx, which never sees a large weight.

It copies every constant again and again: VGG16 took 17 GB. So weights travel as placeholders, and
come back, with what was done to them, when the graph is finished (`weights.py`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert import lowering, prepare
from kedge_convert.formats import (
    flatbuffer,
    tf2onnx_dense,
    tf2onnx_erfc,
    tf2onnx_gelu,
    tflite_converter,
    weights,
)
from kedge_convert.source import Source
from kedge_convert.toolkit import require

OPSET = 17  # the last that tf2onnx 1.17 writes without gaps is 18

Route = Callable[[Source, Path], Any]


def through_tflite(source: Source, folder: Path) -> Any:
    """Return the ModelProto of the float TFLite file: its batch norms are folded already."""
    tf2onnx_gelu.register()
    tf2onnx_dense.register()
    content, hidden = _hidden(tflite_converter.float32(source))
    path = folder / "skeleton.tflite"
    path.write_bytes(content)
    model = require("tf2onnx").convert.from_tflite(str(path), opset=OPSET)[0]
    return weights.put_back(model, hidden)


def through_graph(source: Source, folder: Path) -> Any:
    """Return the ModelProto of the Keras model's own graph, batch norms folded by us."""
    tf, tf2onnx = require("tensorflow"), require("tf2onnx")
    tf2onnx_erfc.register()
    lowered = lowering.lower(source.model, lowering.TF2ONNX).model
    model = tflite_converter.batch_of_one(prepare.plan(lowered).build())
    variables = model.trainable_variables + model.non_trainable_variables
    count = len(model.trainable_variables)

    @tf.function  # type: ignore[untyped-decorator]
    def call(picture: Any, *values: Any) -> Any:
        return model.stateless_call(list(values[:count]), list(values[count:]), picture)[0]

    specs = [tf.TensorSpec(each.shape, each.dtype) for each in (model.inputs[0], *variables)]
    function = call.get_concrete_function(*specs)
    graph, names = function.graph, [tensor.name for tensor in function.graph.inputs]
    converted, _ = tf2onnx.convert._convert_common(
        graph.as_graph_def(),
        opset=OPSET,
        input_names=names,
        output_names=[tensor.name for tensor in graph.outputs],
    )
    # What the layers hold besides variables comes last.
    values = (each.numpy() for each in (*variables, *function.captured_inputs))
    hidden = dict(zip(names[1:], values, strict=True))
    return weights.put_back(converted, hidden)


ROUTES: dict[str, Route] = {"through TFLite": through_tflite, "through the graph": through_graph}


def _hidden(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a float TFLite file whose large constants are inputs, and those by name."""
    model = flatbuffer.unpack(content)
    graph, hidden = model.subgraphs[0], {}
    for index, tensor in enumerate(graph.tensors):
        values = flatbuffer.constant(model, tensor)
        if values is not None and values.size >= weights.LARGE:
            hidden[tensor.name.decode()] = values
            tensor.buffer = 0
            graph.inputs = np.append(graph.inputs, np.int32(index))
    return flatbuffer.pack(model), hidden
