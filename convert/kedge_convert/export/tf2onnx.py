"""Export Keras to ONNX by tf2onnx on two routes, with the operators that it lacks or gets wrong.

It never sees a large weight.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.export import flatbuffer, onnx_graph, tflite_converter
from kedge_convert.prepare import preparation
from kedge_convert.rewrite import lowering
from kedge_convert.source import Source
from kedge_convert.toolkit import require


@cache
def register_dense() -> None:
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


@cache
def register_erfc() -> None:
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


@cache
def register_gelu() -> None:
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


OPSET = 17  # the last that tf2onnx 1.17 writes without gaps is 18


def through_tflite(source: Source, folder: Path) -> Any:
    """Return the ModelProto of the float TFLite file: its batch norms are folded already."""
    _counted_anew()
    register_gelu()
    register_dense()
    content, hidden = _hidden(tflite_converter.float32(source))
    path = folder / "skeleton.tflite"
    path.write_bytes(content)
    model = require("tf2onnx").convert.from_tflite(str(path), opset=OPSET)[0]
    return _finished(model, hidden)


def through_graph(source: Source, folder: Path) -> Any:
    """Return the ModelProto of the Keras model's own graph, batch norms folded by us."""
    tf, tf2onnx = require("tensorflow"), require("tf2onnx")
    _counted_anew()
    register_erfc()
    lowered = lowering.lower(source.model, lowering.TF2ONNX).model
    model = tflite_converter.batch_of_one(preparation.plan(lowered).build())
    variables = model.trainable_variables + model.non_trainable_variables
    count = len(model.trainable_variables)

    @tf.function  # type: ignore[untyped-decorator]
    def call(image: Any, *values: Any) -> Any:
        return model.stateless_call(list(values[:count]), list(values[count:]), image)[0]

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
    return _finished(converted, hidden)


def _counted_anew() -> None:
    """Have tf2onnx count its names from one: its optimisers go by them, whatever went before."""
    names: Any = require("tf2onnx.utils")
    names.INTERNAL_NAME = 1


def _finished(model: Any, hidden: dict[str, Any]) -> Any:
    """Return the ModelProto with its weights, in the canonical form."""
    return onnx_graph.canonical(reduced(onnx_graph.put_back(model, hidden)))


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


def _hidden(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a float TFLite file whose large constants are inputs, and those by name."""
    model = flatbuffer.unpack(content)
    graph, hidden = model.subgraphs[0], {}
    for index, tensor in enumerate(graph.tensors):
        values = flatbuffer.constant(model, tensor)
        if values is not None and values.size >= onnx_graph.LARGE:
            hidden[tensor.name.decode()] = values
            tensor.buffer = 0
            graph.inputs = np.append(graph.inputs, np.int32(index))
    return flatbuffer.pack(model), hidden
