"""Check the facts of an .onnx file that engines trust: names, operands, shapes, weights, memory.

Unlike TFLite, ONNX states the shapes of the graph's inputs and outputs only. The check computes all
others.
"""

import math
from typing import NamedTuple

from kedge_runtime.modelfile.check import onnx_moves as moves
from kedge_runtime.modelfile.check import onnx_shapes as shapes
from kedge_runtime.modelfile.check import onnx_windows as windows
from kedge_runtime.modelfile.check.onnx_graph import (
    BYTES,
    OnnxGraph,
    OnnxNode,
    OnnxValue,
    read_graph,
)
from kedge_runtime.modelfile.check.onnx_shapes import OnnxStep, Rule, Shapes
from kedge_runtime.modelfile.check.onnx_windows import fold
from kedge_runtime.modelfile.check.tflite import MAX_WORK
from kedge_runtime.modelfile.check.tflite_graph import MAX_MEMORY
from kedge_runtime.modelfile.check.tflite_shapes import Cost, UnsoundError

MAX_NODES = 20_000


class OperatorKind(NamedTuple):
    """An operator's rule, and its least and largest number of operands."""

    rule: Rule
    operands: tuple[int, int]


def _kinds(names: str, rule: Rule, low: int, high: int | None = None) -> dict[str, OperatorKind]:
    return dict.fromkeys(names.split(), OperatorKind(rule, (low, high or low)))


UNARY = (
    "Abs Acos Asin Atan Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Tan Tanh ThresholdedRelu Cast Shrink"
)
BINARY = "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Mod Mul Or Pow Sub Xor"
KINDS: dict[str, OperatorKind] = {
    **_kinds(UNARY, shapes.same, 1),
    **_kinds(BINARY, shapes.broadcast, 2),
    **_kinds("Max Min Mean Sum", shapes.broadcast, 1, 64),
    **_kinds("Where", shapes.broadcast, 3),
    **_kinds("Clip Dropout", shapes.one_number, 1, 3),
    **_kinds("Softmax LogSoftmax Hardmax LpNormalization", shapes.along, 1),
    **_kinds("LRN", shapes.same, 1),
    **_kinds("PRelu", shapes.fits, 2),
    **_kinds("QuantizeLinear DequantizeLinear", shapes.quantised, 2, 3),
    **_kinds("BatchNormalization", shapes.channels, 5),
    **_kinds("InstanceNormalization", shapes.channels, 3),
    **_kinds("LayerNormalization", shapes.layer, 2, 3),
    **_kinds("Conv", windows.conv, 2, 3),
    **_kinds("ConvTranspose", windows.conv_transpose, 2, 3),
    **_kinds("QLinearConv", windows.qlinear_conv, 8, 9),
    **_kinds("ConvInteger", windows.integer_conv, 2, 4),
    **_kinds("AveragePool MaxPool", windows.pool, 1),
    **_kinds("GlobalAveragePool GlobalMaxPool", windows.global_pool, 1),
    **_kinds("MatMul", shapes.matmul, 2),
    **_kinds("MatMulInteger", shapes.matmul, 2, 4),
    **_kinds("QLinearMatMul", shapes.qlinear_matmul, 8),
    **_kinds("Gemm", shapes.gemm, 2, 3),
    **_kinds("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd", shapes.reduce, 1, 2),
    **_kinds("ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp", shapes.reduce, 1, 2),
    **_kinds("ArgMax ArgMin", shapes.arg, 1),
    **_kinds("Reshape", moves.reshape, 1, 2),
    **_kinds("Flatten", moves.flatten, 1),
    **_kinds("Squeeze", moves.squeeze, 1, 2),
    **_kinds("Unsqueeze", moves.unsqueeze, 1, 2),
    **_kinds("Transpose", moves.transpose, 1),
    **_kinds("Concat", moves.concat, 1, 512),
    **_kinds("Split", moves.split, 1, 2),
    **_kinds("Slice", moves.slice_, 1, 5),
    **_kinds("Pad", moves.pad, 1, 4),
    **_kinds("Tile", moves.tile, 2),
    **_kinds("Expand", moves.expand, 2),
    **_kinds("Gather", moves.gather, 2),
    **_kinds("Resize", moves.resize, 2, 4),
    **_kinds("Upsample", moves.resize, 2),
    **_kinds("DepthToSpace", moves.depth_to_space, 1),
    **_kinds("SpaceToDepth", moves.space_to_depth, 1),
    **_kinds("Shape", moves.shape_of, 1),
    **_kinds("Constant", moves.constant, 0),
    **_kinds("ConstantOfShape", moves.constant_of_shape, 1),
    **_kinds("LSTM", moves.recurrent, 3, 8),
    **_kinds("GRU RNN", moves.recurrent, 3, 6),
    **_kinds("ReverseSequence", moves.reverse_sequence, 2),
    **_kinds("TopK", moves.top_k, 2),
    # Those of onnxruntime's quantiser.
    **_kinds("QLinearAdd QLinearMul", shapes.qlinear_pair, 7, 8),
    **_kinds("QLinearSigmoid QLinearLeakyRelu QLinearSoftmax", shapes.same, 4, 5),
    **_kinds("QLinearGlobalAveragePool", windows.qlinear_global, 5),
    **_kinds("DynamicQuantizeLinear", shapes.dynamic, 1),
}


def check(content: bytes) -> Cost:
    """Return the cost of a run.

    Shapes behind an unknown operator are unknown, so the rest is not checked. Raises UnsoundError;
    ValueError, IndexError, KeyError for bytes that are no such file.
    """
    graph = read_graph(content)
    if unknown := {node.kind for node in graph.nodes} - KINDS.keys():
        return Cost(MAX_WORK, tuple(sorted(unknown)))
    if len(graph.nodes) > MAX_NODES:
        raise UnsoundError(f"it has {len(graph.nodes)} operators")
    values: dict[str, OnnxValue] = {**graph.weights, **graph.inputs}
    lasts = _lasts(graph)
    alive, work = sum(_bytes(value) for value in graph.inputs.values()), 0
    for number, node in enumerate(graph.nodes):
        try:
            step, found = _run(node, values)
        except UnsoundError as error:
            raise UnsoundError(f"{node.kind}: {error}"[:200]) from None
        alive += sum(_bytes(values[name]) for name in node.outputs if name)
        work += _work(step, found)
        if alive + _scratch(step, found) > MAX_MEMORY:
            raise UnsoundError(f"its activations take more than {MAX_MEMORY >> 20} MB")
        if work > MAX_WORK:
            raise UnsoundError(f"a run takes more than {MAX_WORK >> 30} G multiplications")
        for name in {*node.inputs, *node.outputs}:
            if lasts.get(name) == number and not values[name].stored:
                alive -= _bytes(values[name])
    if any(name not in values for name in graph.outputs):
        raise UnsoundError("an output is never computed")
    return Cost(work)


def _run(node: OnnxNode, values: dict[str, OnnxValue]) -> tuple[OnnxStep, Shapes]:
    """Check one operator, and add its outputs to the values."""
    kind = KINDS[node.kind]
    if not kind.operands[0] <= len(node.inputs) <= kind.operands[1]:
        raise UnsoundError(f"it has {len(node.inputs)} operands, allowed are {kind.operands}")
    if lost := [name for name in node.inputs if name and name not in values]:
        raise UnsoundError(f"it reads {lost[0]!r}, which isn't computed before it")
    step = OnnxStep(node, [values[name] if name else None for name in node.inputs])
    if any(v is not None and 0 in v.shape and not _may_be_empty(node, v) for v in step.inputs):
        raise UnsoundError("an operand is empty")
    found = kind.rule(step)
    names = [name for name in node.outputs if name]
    if not 1 <= len(names) <= len(found) or node.outputs[0] in ("", *node.outputs[1:]):
        raise UnsoundError(f"it gives {len(names)} tensors")
    for name, shape in zip(node.outputs, found, strict=False):
        if name and name in values:
            raise UnsoundError(f"it writes {name!r}, which is there")
        if name:
            values[name] = OnnxValue(tuple(shape), stored=False)
    _set_facts(step, found, values[node.outputs[0]])
    return step, found


def _may_be_empty(node: OnnxNode, value: OnnxValue) -> bool:
    """Return whether a value may be empty: a list of axes or sizes, or an absent one of Resize."""
    return value.shape == (0,) and (value.integers is not None or node.kind == "Resize")


def _set_facts(step: OnnxStep, found: Shapes, value: OnnxValue) -> None:
    """Set a value's numbers where they are known, and whether it is constant."""
    node = step.node
    if node.kind == "Constant":
        tensor = node.tensors.get("value")
        value.constant, value.integers = True, None if tensor is None else tensor.integers
        value.stored = tensor is not None
        value.dtype = "" if tensor is None else tensor.dtype
        value.floats = None if tensor is None else tensor.floats
        if "value_ints" in node.integers or "value_int" in node.integers:
            numbers = node.integers.get("value_ints") or node.integers["value_int"]
            value.integers = shapes.integers(numbers).reshape(found[0])
        return
    value.integers = fold(step, found)
    value.constant = node.kind in PASSED and all(v is None or v.constant for v in step.inputs)
    value.stored = False


# Operators that keep a constant constant, as writers leave them.
_PASSED = "DequantizeLinear Cast Identity Transpose Reshape Unsqueeze Squeeze ConstantOfShape"
PASSED = frozenset(_PASSED.split())


def _bytes(value: OnnxValue) -> int:
    return 0 if value.stored else value.elements * BYTES.get(value.dtype, 4)


def _lasts(graph: OnnxGraph) -> dict[str, int]:
    found = {
        name: i for i, node in enumerate(graph.nodes) for name in (*node.outputs, *node.inputs)
    }
    for name in ("", *graph.outputs):
        found.pop(name, None)
    return found


def _depth(step: OnnxStep) -> int:
    kind = step.node.kind
    if kind in ("Conv", "ConvInteger"):
        return math.prod(step.shape(1)[1:])
    if kind == "QLinearConv":
        return math.prod(step.shape(3)[1:])
    if kind == "ConvTranspose":
        return math.prod(step.shape(1)[2:]) * step.shape(1)[0]
    if kind in ("MatMul", "Gemm", "MatMulInteger"):
        return max(step.shape()[-2:])
    if kind in ("MaxPool", "AveragePool"):
        return math.prod(step.node.integers.get("kernel_shape", ()))
    return step.attribute("size", 1) if kind == "LRN" else 1


def _work(step: OnnxStep, found: Shapes) -> int:
    given = sum(map(math.prod, found))
    return given * (1 + _depth(step)) + sum(v.elements for v in step.inputs if v is not None)


def _scratch(step: OnnxStep, found: Shapes) -> int:
    """Return the bytes that a convolution allocates for its windows."""
    if step.node.kind not in ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"):
        return 0
    return 4 * math.prod(found[0][2:]) * _depth(step) // step.attribute("group", 1)
