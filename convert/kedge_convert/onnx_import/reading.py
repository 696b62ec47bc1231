"""Read a float ONNX file, checked before, as nodes on named values; constants as numpy arrays."""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kedge_convert.program.reading import Array
from kedge_convert.toolkit import require
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.modelfile.network import readable

DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxOperation:
    """A node; `inputs`, `outputs`: names, empty for an absent one; `attributes`: Python's values.

    `opset`: the version of the operators' definitions.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int


@dataclass(frozen=True)
class OnnxProgram:
    """Operations in execution order; the others are names of values."""

    operations: tuple[OnnxOperation, ...]
    constants: dict[str, Array]
    input: str
    outputs: tuple[str, ...]


def read_onnx(content: ModelContent) -> OnnxProgram:
    """Return the graph of a file that was checked. Raises ArtefactError for a damaged one."""
    with readable(content):
        model = require("onnx").load_from_string(content.data)
        return _program(model)


def _program(model: Any) -> OnnxProgram:
    graph, opset = model.graph, _opset(model)
    helper = require("onnx").numpy_helper
    constants = {each.name: np.asarray(helper.to_array(each)) for each in graph.initializer}
    (value,) = (each for each in graph.input if each.name not in constants)
    operations = [_operation(node, opset) for node in graph.node]
    constants |= {each.outputs[0]: _number(each) for each in operations if each.kind == "Constant"}
    program = OnnxProgram(
        tuple(each for each in operations if each.kind != "Constant"),
        constants,
        value.name,
        tuple(each.name for each in graph.output),
    )
    return replace(program, operations=tuple(_with_biases(program)))


def _opset(model: Any) -> int:
    return max((each.version for each in model.opset_import if each.domain in DOMAINS), default=1)


def _operation(node: Any, opset: int) -> OnnxOperation:
    read = require("onnx").helper.get_attribute_value
    attributes = {each.name: _plain(read(each)) for each in node.attribute}
    kind = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
    return OnnxOperation(kind, tuple(node.input), tuple(node.output), attributes, opset)


def _number(constant: OnnxOperation) -> Array:
    """Return the value of a Constant, which is in one of several attributes."""
    ((name, value),) = constant.attributes.items()
    dtype = {"value_float": np.float32, "value_floats": np.float32}.get(name)
    return np.asarray(value, dtype)


def _plain(value: Any) -> Any:
    """Return an attribute as Python's own types, a tensor as an array."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if hasattr(value, "raw_data"):
        return np.asarray(require("onnx").numpy_helper.to_array(value))
    return tuple(value) if isinstance(value, list) else value


def _with_biases(program: OnnxProgram) -> list[OnnxOperation]:
    """Return the operations, a MatMul and the addition of a constant list to it as one MatMul.

    A dense layer of Keras has its bias, and its place as a last layer tells the output type.
    """
    readers = Counter(name for each in program.operations for name in each.inputs)
    readers.update(program.outputs)
    single = {each.outputs[0] for each in program.operations if each.kind == "MatMul"}
    single = {name for name in single if readers[name] == 1}
    sums = {
        found[0]: (found[1], each.outputs)
        for each in program.operations
        if each.kind == "Add" and (found := _biased(each, single, program.constants))
    }
    dropped = {outputs for _, outputs in sums.values()}
    operations = []
    for each in program.operations:
        if each.outputs[0] in sums:
            bias, outputs = sums[each.outputs[0]]
            operations.append(replace(each, inputs=(*each.inputs, bias), outputs=outputs))
        elif each.outputs not in dropped:
            operations.append(each)
    return operations


def _biased(
    add: OnnxOperation, products: Container[str], constants: Mapping[str, Array]
) -> tuple[str, str] | None:
    """Return the product and the bias of an addition, None where it adds something else."""
    for name, other in (add.inputs, add.inputs[::-1]):
        if name in products and other in constants and constants[other].ndim == 1:
            return name, other
    return None
