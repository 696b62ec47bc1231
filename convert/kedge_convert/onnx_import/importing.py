"""Build the Keras model that computes the same as a float ONNX file."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kedge_convert.onnx_import.calls import HeldValue, OnnxCall, Operand, images, plain
from kedge_convert.onnx_import.operators import ONNX_RULES
from kedge_convert.onnx_import.reading import OnnxOperation, OnnxProgram
from kedge_convert.program.calls import OperatorImportError, made_by
from kedge_convert.program.importing import INPUT, LayerNames
from kedge_convert.program.reading import Array, needed
from kedge_convert.toolkit import require
from kedge_runtime.errors import one_line


def imported_onnx(program: OnnxProgram, name: str, shape: tuple[int, ...], *, planar: bool) -> Any:
    """Return a Functional model of one input, float32 [n, *shape], and the program's outputs.

    `planar`: whether the file takes [n, c, h, w]. The model takes [n, h, w, c] all the same.
    Raises OperatorImportError.
    """
    keras = require("keras")
    image = keras.Input(shape, name=INPUT)
    building = _OnnxBuilding(program, images(image) if planar else plain(image))
    for operation in needed(program.operations, program.outputs):
        building.add(operation)
    outputs = [building.values.get(each) for each in program.outputs]
    if not all(isinstance(each, HeldValue) for each in outputs):
        raise OperatorImportError("OUTPUT of constants")
    symbols = [each.plain for each in outputs if isinstance(each, HeldValue)]
    return keras.Model(image, symbols if len(symbols) > 1 else symbols[0], name=name)


class _OnnxBuilding:
    """The values so far, by name: held by Keras, or constant."""

    def __init__(self, program: OnnxProgram, image: HeldValue) -> None:
        self.values: dict[str, Operand] = {**program.constants, program.input: image, "": None}
        self._names = LayerNames()
        self._named: set[int] = set()

    def add(self, operation: OnnxOperation) -> None:
        """Add the values of an operation. Raises OperatorImportError."""
        operands = [self.values.get(each) for each in operation.inputs]
        if operation.kind == "Shape" and isinstance(operands[0], HeldValue):
            operands[0] = np.empty(operands[0].shape, np.uint8)
        if not any(isinstance(each, HeldValue) for each in operands):
            results: Sequence[Operand] = _computed(operation, operands)
        else:
            results = self._results(operation, operands)
        self.values |= dict(zip(operation.outputs, results, strict=False))

    def _results(self, operation: OnnxOperation, operands: Sequence[Operand]) -> list[HeldValue]:
        call = OnnxCall(operation, self._names.of(operation.outputs[0]), operands)
        if operation.kind not in ONNX_RULES:
            raise call.refusal()
        made = made_by(ONNX_RULES[operation.kind], call)
        first = (made if isinstance(made, list) else [made])[0]
        layer = first.symbol._keras_history.operation
        # Layers have names by their rules; operations are counted over the whole process by Keras.
        if not isinstance(layer, require("keras").layers.Layer) and id(layer) not in self._named:
            layer.name = call.name
            self._named.add(id(layer))
        return made if isinstance(made, list) else [made]


def _computed(operation: OnnxOperation, operands: Sequence[Operand]) -> list[Array]:
    """Return what a node makes of constants, by ONNX's reference. Raises OperatorImportError."""
    helper = require("onnx").helper
    inputs = dict(zip(operation.inputs, operands, strict=True))
    node = helper.make_node(
        operation.kind, operation.inputs, operation.outputs, **operation.attributes
    )
    opsets = {"": operation.opset}
    try:
        evaluator = require("onnx.reference").ReferenceEvaluator(node, opsets=opsets)
        found = evaluator.run(None, {name: each for name, each in inputs.items() if name})
    # The reference raises whatever numpy does.
    except Exception as error:
        reason = f"{operation.kind} of constants ({one_line(error, 100)})"
        raise OperatorImportError(reason) from error
    return [np.asarray(each) for each in found]
