"""Write a whole program: its tensors as they come to be, its operators by their rules."""

from dataclasses import dataclass, field
from typing import Any

from kedge_convert.export.onnx_graph import INPUT, OUTPUT
from kedge_convert.export.onnx_program import (
    activations,
    elementwise,
    moves,
    reductions,
    resizes,
    windows,
)
from kedge_convert.export.onnx_program.calls import ForeignOperatorError, OperatorCall, Rule
from kedge_convert.export.onnx_program.tensors import WrittenTensors
from kedge_convert.program import reading
from kedge_convert.toolkit import require

OPSET, IR_VERSION = 17, 8  # that of all routes (export/tf2onnx.py)

RULES: dict[str, Rule] = {
    **activations.RULES,
    **elementwise.RULES,
    **moves.RULES,
    **reductions.RULES,
    **resizes.RULES,
    **windows.RULES,
}


@dataclass(frozen=True)
class Written:
    """A ModelProto of one input and one output.

    `names`: of each of the program's activations, the ONNX value with the same numbers, in either
    layout. What a convolution took over, a padding, has none; nor has another program's model.
    """

    model: Any
    names: dict[str, str] = field(default_factory=dict)


def write(content: bytes) -> Written:
    """Return the ONNX model of a float TFLite file. Raises ForeignOperatorError."""
    program = reading.read(content)
    operations = reading.needed(program.operations, program.outputs)
    if foreign := sorted({each.kind for each in operations} - RULES.keys()):
        raise ForeignOperatorError(f"no rule for {', '.join(foreign)}")
    tensors = WrittenTensors(program)
    for operation in operations:
        _write(OperatorCall(operation, tensors), tensors)
    nodes, names = tensors.finish()
    return Written(_model(tensors, nodes), names)


def _write(call: OperatorCall, tensors: WrittenTensors) -> None:
    made = RULES[call.kind](call)
    results = made if isinstance(made, list) else [made]
    for index, result in zip(call.operation.outputs, results, strict=True):
        tensors.add(index, result)


def _model(tensors: WrittenTensors, nodes: list[Any]) -> Any:
    """Return the ModelProto."""
    onnx = require("onnx")
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip((INPUT, OUTPUT), tensors.ends(), strict=True)
    ]
    graph = onnx.helper.make_graph(nodes, "kedge", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    tensors.graph.fill(model.graph)
    return model
