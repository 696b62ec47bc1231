"""Make float16 and int8 of a float ONNX file, through onnxruntime's quantiser."""

from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.export.exported import ExportOptions, half
from kedge_convert.source import Source
from kedge_convert.toolkit import require

KERNEL = 1  # its index among a node's inputs
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
    """Whether its kernel is; a depthwise convolution's stays (`exported.half`)."""
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


TINY = np.float32(np.finfo(np.float32).tiny)


def guard(model: Any) -> Any:
    """Return the ModelProto with zeros before a MaxPool written as TINY; changes it in place."""
    pooled = {node.input[0] for node in model.graph.node if node.op_type == "MaxPool"}
    constants = {each.name: each for each in model.graph.initializer}
    pads = [node for node in model.graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    for pad in filter(lambda pad: _of_zeros(pad, constants), pads):
        name = f"{pad.output[0]}/value"
        value = require("onnx").numpy_helper.from_array(np.array(TINY), name)
        model.graph.initializer.append(value)
        pad.input[:] = [*pad.input[:2], name, *pad.input[3:]]
    return model


def _of_zeros(pad: Any, constants: dict[str, Any]) -> bool:
    """Whether it pads with a constant that is zero, as it does when nothing is said."""
    modes = [each.s for each in pad.attribute if each.name == "mode"]
    if modes and modes != [b"constant"]:
        return False
    if len(pad.input) < 3 or not pad.input[2]:
        return True
    held = constants.get(pad.input[2])
    return held is not None and not require("onnx").numpy_helper.to_array(held).any()


def stock(source: Source, floats: Path, options: ExportOptions) -> bytes:
    """Quantise statically: QDQ, int8 weights per channel, int8 activations by min and max."""
    quantization = require("onnxruntime.quantization")
    quantised = floats.with_suffix(".int8.onnx")
    quantization.quantize_static(
        str(folded(floats)),
        str(quantised),
        _reader(quantization, source, options),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=options.scheme.reduce_range,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QInt8,
    )
    return quantised.read_bytes()


def folded(floats: Path) -> Path:
    """Write a float model beside itself as onnxruntime wants it before it quantises."""
    shapes = require("onnxruntime.quantization.shape_inference")
    path = floats.with_suffix(".folded.onnx")
    shapes.quant_pre_process(str(floats), str(path), skip_symbolic_shape=True)
    return path


def _reader(quantization: Any, source: Source, options: ExportOptions) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._tensors = options.tensors(source)

        def get_next(self) -> dict[str, Any] | None:
            tensor = next(self._tensors, None)
            return None if tensor is None else {"input": tensor}

    return Reader()
