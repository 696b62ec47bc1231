"""Read ONNX files as a Network, without the onnx package."""

import struct
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from kedge_runtime.modelfile import onnx_schema as schema
from kedge_runtime.modelfile.encodings import Message
from kedge_runtime.modelfile.network import Network, Operator, Scales, Value

DATA = (schema.FLOAT_DATA, schema.INT32_DATA, schema.INT64_DATA, schema.RAW_DATA)
# Which side of it has the integers, which the real numbers.
QUANTISING = {"DequantizeLinear": ("inputs", "outputs"), "QuantizeLinear": ("outputs", "inputs")}


def read(content: memoryview) -> Network:
    """Return the graph of a file. Raises ValueError, IndexError, KeyError, struct.error."""
    model = Message(bytes(content))
    graph = model.message(schema.GRAPH)
    if graph is None:
        raise ValueError("no graph in it")
    weights = [_initialiser(each, content) for each in graph.messages(schema.INITIALISER)]
    inputs, outputs, others = (
        [_value(each) for each in graph.messages(number)]
        for number in (schema.INPUT, schema.OUTPUT, schema.VALUE_INFO)
    )
    names = _Names(chain(weights, inputs, outputs, others))
    opsets = {
        each.text(schema.OPSET_DOMAIN): each.number(schema.OPSET_VERSION)
        for each in model.messages(schema.OPSETS)
    }
    operators = tuple(_operator(each, names, opsets) for each in graph.messages(schema.NODE))
    constants = {value.name for value in weights}
    network = Network(
        "onnx",
        tuple(names.values),
        operators,
        tuple(names.index(value.name) for value in inputs if value.name not in constants),
        tuple(names.index(value.name) for value in outputs),
    )
    return _with_scales(network)


class _Names:
    """The indices of values by name; a name that the file does not describe gets an empty value."""

    def __init__(self, described: Iterable[Value]) -> None:
        self.values: list[Value] = []
        self._indices: dict[str, int] = {}
        for value in described:
            if value.name not in self._indices:
                self._add(value)

    def index(self, name: str) -> int:
        if not name:
            return -1
        return self._indices[name] if name in self._indices else self._add(Value(name, None, ""))

    def _add(self, value: Value) -> int:
        self._indices[value.name] = len(self.values)
        self.values.append(value)
        return len(self.values) - 1


def _initialiser(tensor: Message, content: memoryview) -> Value:
    data = [content[each] for number in DATA for each in tensor.slices(number)]
    return Value(
        tensor.text(schema.TENSOR_NAME, "replace"),
        tensor.numbers(schema.DIMS),
        _dtype(tensor.number(schema.DATA_TYPE)),
        data=next((each for each in data if len(each)), content[:0]),
    )


def _value(described: Message) -> Value:
    name, kind = described.text(schema.VALUE_NAME, "replace"), described.message(schema.VALUE_TYPE)
    tensor = None if kind is None else kind.message(schema.TENSOR_TYPE)
    if tensor is None:
        return Value(name, None, "")
    shape, dtype = tensor.message(schema.SHAPE), _dtype(tensor.number(schema.ELEMENT_TYPE))
    if shape is None:
        return Value(name, None, dtype)
    sides = tuple(each.number(schema.DIM_VALUE, -1) for each in shape.messages(schema.DIM))
    return Value(name, sides, dtype)


def _operator(node: Message, names: _Names, opsets: dict[str, int]) -> Operator:
    inputs, outputs = (
        tuple(names.index(name) for name in node.texts(number))
        for number in (schema.NODE_INPUT, schema.NODE_OUTPUT)
    )
    version = opsets.get(node.text(schema.DOMAIN, "replace"), 0)
    return Operator(node.text(schema.OP_TYPE, "replace"), version, inputs, outputs)


def _with_scales(network: Network) -> Network:
    """Give the integers of every (De)QuantizeLinear their type, and their scales."""
    values = list(network.values)
    for operator in network.operators:
        sides = QUANTISING.get(operator.kind)
        if sides is None or min(operator.inputs[:2], default=-1) < 0:
            continue
        integer, real = (getattr(operator, side)[0] for side in sides)
        zero = values[operator.inputs[2]].dtype if len(operator.inputs) > 2 else ""
        scales = _scales(values[operator.inputs[1]])
        values[integer] = replace(
            values[integer], dtype=values[integer].dtype or zero, scales=scales
        )
        values[real] = replace(values[real], dtype=values[real].dtype or "float32")
    return replace(network, values=tuple(values))


def _scales(value: Value) -> Scales | None:
    if value.data is None or value.dtype != "float32":
        return None
    return Scales.of([number for (number,) in struct.iter_unpack("<f", value.data)])


def _dtype(code: int) -> str:
    return schema.dtype_name(code) or f"type{code}"
