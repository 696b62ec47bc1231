"""Static int8 of a float ONNX model: onnxruntime's quantiser takes the ranges of its values.

Where a model was written from the float TFLite program, its values have the names of that program's
tensors, and their ranges are known.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export.exported import PLAIN, Range, Ranges, Scheme
from kedge_convert.export.onnx_graph import INPUT
from kedge_convert.toolkit import require
from kedge_runtime.files import temporary_folder
from kedge_runtime.output import quiet

FLOAT = 1  # onnx.TensorProto.FLOAT
KERNEL = 1  # its index among an operator's inputs
# What the quantiser gives its reader's name: an activation function takes the place of its input.
FUSED = frozenset({"Relu", "Clip"})
# What moves values without changing them.
MOVED = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})

Activation = NDArray[np.float32]


def folded(content: bytes) -> bytes:
    """Return a float model as onnxruntime wants it before it quantises."""
    shapes = require("onnxruntime.quantization.shape_inference")
    with quiet(), temporary_folder() as folder:
        floats, path = folder / "float32.onnx", folder / "folded.onnx"
        floats.write_bytes(content)
        shapes.quant_pre_process(str(floats), str(path), skip_symbolic_shape=True)
        return path.read_bytes()


def activations(graph: Any) -> list[str]:
    """Return the names of the operators' float outputs."""
    outputs = {name for node in graph.node for name in node.output}
    infos = [*graph.value_info, *graph.output]
    return [v.name for v in infos if v.name in outputs and v.type.tensor_type.elem_type == FLOAT]


def sources(content: bytes, known: Mapping[str, str]) -> dict[str, str]:
    """Return, by the activations that have one, the tensor of the program whose range they have.

    `known`: of some values that tensor. An activation that is moved from a known one, or becomes
    one by a move or an activation function, has its range. Parts of an operator have none.
    """
    graph = require("onnx").load_from_string(content).graph
    found = {name: known[name] for name in [INPUT] if name in known}
    wanted = set(activations(graph))
    for node in graph.node:
        for name in wanted.intersection(node.output):
            if name in known:
                found[name] = known[name]
            elif node.op_type in MOVED and node.input[0] in found:
                found[name] = found[node.input[0]]
    for node in reversed(graph.node):
        passed = node.op_type in FUSED | MOVED and node.output[0] in found
        if passed and node.input[0] in wanted:
            found.setdefault(node.input[0], found[node.output[0]])
    return found


def observed(
    content: bytes, images: Iterable[Activation], known: Container[str] = ()
) -> Iterator[tuple[str, Activation]]:
    """Yield the name and value of every activation that isn't known, image by image."""
    model = require("onnx").load_from_string(content)
    names = [name for name in activations(model.graph) if name not in known]
    if not names:
        return
    session = _session(_with_outputs(model, names))
    for image in images:
        if INPUT not in known:
            yield INPUT, image
        yield from zip(names, session.run(list(names), {INPUT: image}), strict=True)


def minmax(content: bytes, images: Iterable[Activation], known: Container[str] = ()) -> Ranges:
    """Return the range of all values of every activation that isn't known, over the images."""
    return Range.of_all(observed(content, images, known))


def quantise(
    content: bytes,
    ranges: Ranges,
    float_operators: frozenset[str] = frozenset(),
    scheme: Scheme = PLAIN,
) -> bytes:
    """Return the int8 model: QDQ, the operators named stay float."""
    quantization = require("onnxruntime.quantization")
    registry = require("onnxruntime.quantization.registry")
    int8 = quantization.QuantType.QInt8
    with quiet():
        quantizer = require("onnxruntime.quantization.qdq_quantizer").QDQQuantizer(
            _loaded(content),
            per_channel=scheme.per_channel,
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


def _loaded(content: bytes) -> Any:
    tools = require("onnxruntime.quantization.quant_utils")
    with temporary_folder() as folder:
        path = folder / "floats.onnx"
        path.write_bytes(content)
        return _with_own_kernels(tools.load_model_with_shape_infer(path))


def _with_own_kernels(model: Any) -> Any:
    """Return the model with a kernel for each operator, where several share one.

    onnxruntime 1.31 can't add precisely by weights that two operators share: on x86 processors
    without VNNI its sums saturate then.
    """
    graph, taken = model.graph, set[str]()
    kernels = {each.name: each for each in graph.initializer if len(each.dims) > 1}
    for node in graph.node:
        name = node.input[KERNEL] if len(node.input) > KERNEL else ""
        if name in taken:
            node.input[KERNEL] = f"{name}//{len(graph.initializer)}"
            graph.initializer.add().CopyFrom(kernels[name])
            graph.initializer[-1].name = node.input[KERNEL]
        elif name in kernels:
            taken.add(name)
    return model


def _data(ranges: Ranges) -> Any:
    calibrate = require("onnxruntime.quantization.calibrate")
    pairs = {
        name: (np.array(one.low, np.float32), np.array(one.high, np.float32))
        for name, one in ranges.items()
    }
    return calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, pairs)


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
