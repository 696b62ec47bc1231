"""Build the Keras model that computes the same as a float program."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kedge_convert.program.calls import OperatorImport, OperatorImportError, is_value, made_by
from kedge_convert.program.operators import FOLDED, RULES, with_activation
from kedge_convert.program.reading import Operation, Program, ProgramTensor, needed
from kedge_convert.toolkit import require
from kedge_runtime.errors import one_line

INPUT = "image"
# TensorFlow's operations with a kernel: their names lead to the name of the layer.
_KERNELS = re.compile(r"(Conv2D|convolution|depthwise|MatMul|conv_transpose)\w*$")
_CALL = re.compile(r"_\d+$")
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_.-]+")


def imported(program: Program, name: str, names: frozenset[str] = frozenset()) -> Any:
    """Return a Functional model of one input, float32 [n, h, w, c], and the program's outputs.

    `names`: of the layers that the program was made from. Raises OperatorImportError.
    """
    keras = require("keras")
    (start,) = program.inputs
    batch, *shape = program.tensors[start].shape or (0,)
    if batch != 1:
        raise OperatorImportError(f"INPUT of a batch of {batch}")
    image = keras.Input(tuple(shape), name=INPUT)
    building = _Building(program, image, LayerNames(names))
    for operation in needed(program.operations, program.outputs):
        building.add(operation)
    outputs = [building.values.get(each) for each in program.outputs]
    if not all(map(is_value, outputs)):
        raise OperatorImportError("OUTPUT of constants")
    try:
        return keras.Model(image, outputs if len(outputs) > 1 else outputs[0], name=name)
    # Of names that meet: Keras gives some to parts of a rule by itself.
    except ValueError as error:
        raise OperatorImportError(f"OUTPUT that Keras lacks ({one_line(error, 100)})") from error


class _Building:
    """The values so far: Keras tensors, arrays; None for what is computed from shapes alone."""

    def __init__(self, program: Program, image: Any, names: "LayerNames") -> None:
        constants = enumerate(each.constant for each in program.tensors)
        self.values: dict[int, Any] = {i: each for i, each in constants if each is not None}
        self.values |= {-1: None, program.inputs[0]: image}
        self._tensors = program.tensors
        self._names = names

    def add(self, operation: Operation) -> None:
        """Add the values of an operation. Raises OperatorImportError."""
        operands = [self.values.get(i) for i in operation.inputs]
        if operation.kind == "SHAPE" or not any(map(is_value, operands)):
            self.values |= dict.fromkeys(operation.outputs, _folded(operation, operands))
            return
        tensors = [self._tensors[i] for i in operation.outputs]
        results = self._results(operation, operands, tensors)
        self.values |= dict(zip(operation.outputs, results, strict=True))

    def _results(
        self, operation: Operation, operands: Sequence[Any], tensors: Sequence[ProgramTensor]
    ) -> list[Any]:
        shapes = tuple(each.shape[1:] for each in tensors)
        name = self._names.of(tensors[0].name)
        call = OperatorImport(operation.kind, name, operation.options, operands, shapes)
        if call.kind not in RULES:
            raise call.refusal()
        if any(each.shape[:1] != (1,) for each in tensors):
            raise call.refusal("that mixes the images of a batch")
        made = made_by(RULES[call.kind], call)
        results = list(made) if isinstance(made, list | tuple) else [made]
        # Keras counts operations of no given name over the whole process.
        results[0]._keras_history.operation.name = name
        results = [with_activation(call, each) for each in results]
        if [tuple(each.shape[1:]) for each in results] != list(shapes):
            raise call.refusal("of another shape")
        return results


def _folded(operation: Operation, operands: Sequence[Any]) -> Any:
    """Return the value of an operation on constants; None where only shapes come of it."""
    if operation.kind not in FOLDED or not isinstance(operands[0], np.ndarray):
        return None
    return FOLDED[operation.kind](operands[0])


class LayerNames:
    """Names of layers, each once, from the names of tensors; `known`: the layers' own."""

    def __init__(self, known: frozenset[str] = frozenset()) -> None:
        """Take the names of the layers that the program was made from."""
        self._known = known
        self._taken: dict[str, int] = {INPUT: 1}

    def of(self, tensor: str) -> str:
        """Return a layer's name: the one in the tensor's name that TensorFlow made of layers."""
        name = _layer_name(tensor)
        # TensorFlow counts a layer's calls.
        called = _CALL.sub("", name)
        return self._free(called if called in self._known - {name} else name)

    def _free(self, base: str) -> str:
        count = self._taken[base] = self._taken.get(base, 0) + 1
        return base if count == 1 else self._free(f"{base}_{count}")


def _layer_name(tensor: str) -> str:
    """Return the layer in `model/conv1_relu/Relu6;model/conv1/Conv2D`: conv1.

    Without a kernel it is the layer of the first part.
    """
    parts = [part.split("/") for part in tensor.split(";") if part]
    kernels = [part for part in parts if _KERNELS.match(part[-1]) and len(part) > 1]
    path = (kernels or parts or [["tensor"]])[0]
    name = _UNNAMEABLE.sub("_", path[-2] if len(path) > 1 else path[-1]).strip("_-.")
    return "output" if name.startswith("StatefulPartitionedCall") else name or "tensor"
