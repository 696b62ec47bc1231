"""Static int8 of ONNX with chosen ranges, through onnxruntime's quantiser."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import onnx, onnx_graph
from kedge_convert.export.exported import PLAIN, Ranges, Scheme
from kedge_convert.prepare.preparation import Grids
from kedge_convert.prepare.rounding import LEVELS
from kedge_convert.quantise.ranges import See, StaticOperator
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.files import temporary_folder
from kedge_runtime.output import quiet

FLOAT = 1  # onnx.TensorProto.FLOAT
REDUCED = 64  # onnxruntime.quantization.quant_utils.ONNX_INT_TYPE_REDUCED_RANGE


def floats(source: Source) -> bytes:
    """Return the float model as onnxruntime wants it before it quantises."""
    with quiet(), temporary_folder() as folder:
        plain = folder / "float32.onnx"
        plain.write_bytes(onnx.float32(source))
        return onnx.folded(plain).read_bytes()


def observe(content: bytes, images: Iterable[NDArray[np.float32]], see: See) -> None:
    """Call `see` with the name and value of every activation, image by image."""
    model = require("onnx").load_from_string(content)
    names = _activations(model.graph)
    session = _session(_with_outputs(model, names))
    for image in images:
        values = session.run(list(names), {onnx_graph.INPUT: image})
        for name, value in zip(names, values, strict=True):
            see(name, value)
        see(onnx_graph.INPUT, image)


def quantise(
    content: bytes,
    ranges: Ranges,
    float_operators: frozenset[str] = frozenset(),
    scheme: Scheme = PLAIN,
) -> bytes:
    """Return the int8 model; the operators named in `float_operators` stay float."""
    quantization = require("onnxruntime.quantization")
    registry = require("onnxruntime.quantization.registry")
    int8 = quantization.QuantType.QInt8
    with quiet():
        quantizer = require("onnxruntime.quantization.qdq_quantizer").QDQQuantizer(
            _loaded(content),
            per_channel=True,
            reduce_range=scheme.reduce_range,
            weight_qType=int8,
            activation_qType=int8,
            tensors_range=_data(ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(float_operators),
            op_types_to_quantize=sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry}),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        result: bytes = quantizer.model.model.SerializeToString()
    return result


def grids(scheme: Scheme) -> Grids:
    """Return the grids of prepared weights; dense layers always have a step per output."""
    return Grids(REDUCED if scheme.reduce_range else LEVELS)


def operators(content: bytes) -> list[StaticOperator]:
    """Return the operators of a float model in execution order."""
    graph = require("onnx").load_from_string(content).graph
    activations = frozenset((onnx_graph.INPUT, *_activations(graph)))
    return [
        StaticOperator(node.name, activations.intersection((*node.input, *node.output)))
        for node in graph.node
    ]


def _loaded(content: bytes) -> Any:
    tools = require("onnxruntime.quantization.quant_utils")
    with temporary_folder() as folder:
        path = folder / "floats.onnx"
        path.write_bytes(content)
        return tools.load_model_with_shape_infer(path)


def _data(ranges: Ranges) -> Any:
    calibrate = require("onnxruntime.quantization.calibrate")
    pairs = {
        name: (np.array(one.low, np.float32), np.array(one.high, np.float32))
        for name, one in ranges.items()
    }
    return calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, pairs)


def _activations(graph: Any) -> list[str]:
    """Return the names of the operators' float outputs."""
    outputs = {name for node in graph.node for name in node.output}
    infos = [*graph.value_info, *graph.output]
    return [v.name for v in infos if v.name in outputs and v.type.tensor_type.elem_type == FLOAT]


def _with_outputs(model: Any, names: list[str]) -> bytes:
    present = {value.name for value in model.graph.output}
    helper = require("onnx").helper
    model.graph.output.extend(
        helper.make_tensor_value_info(name, FLOAT, None) for name in names if name not in present
    )
    content: bytes = model.SerializeToString()
    return content


def _session(content: bytes) -> Any:
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    # Fusions would take away tensors whose values are asked for.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
