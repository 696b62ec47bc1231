"""Read the graph of an .onnx file for the check, and check each tensor of weights by itself.

Where a field that may come once comes again, Protocol Buffers take the last, and merge messages.
Two such messages are refused, as no writer makes them.
"""

import math
import struct
from dataclasses import dataclass, field

import numpy as np

from kedge_runtime.arrays import Indices
from kedge_runtime.modelfile import onnx_schema as schema
from kedge_runtime.modelfile.check.tflite_shapes import Shape, UnsoundError
from kedge_runtime.modelfile.encodings import Message

BYTES = {
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float64", "int64", "uint64"), 8),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
}
MAX_SIDES, MAX_RANK, MAX_INTEGERS = 1 << 31, 8, 4096


@dataclass(slots=True)
class OnnxValue:
    """A tensor: its shape as computed from the input's, its type where the file states it.

    `integers`: the numbers of a small list of integers, for axes and shapes. `floats`: those of up
    to eight float32, for factors. `constant`: whether it is the same in every run. `stored`:
    whether the file holds its numbers.
    """

    shape: Shape
    dtype: str = ""
    constant: bool = False
    stored: bool = True
    integers: Indices | None = None
    floats: tuple[float, ...] | None = None

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


@dataclass(slots=True)
class OnnxNode:
    """An operator; `inputs` and `outputs` are names, "" for one that is left out."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    integers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, OnnxValue] = field(default_factory=dict)


@dataclass(slots=True)
class OnnxGraph:
    """A file's graph: operators in order, weights and inputs by name, names of outputs."""

    nodes: list[OnnxNode]
    weights: dict[str, OnnxValue]
    inputs: dict[str, OnnxValue]
    outputs: list[str]


def read_graph(model: bytes) -> OnnxGraph:
    """Read a file. Raises UnsoundError, ValueError, IndexError, KeyError."""
    whole = Message(model)
    if schema.FUNCTIONS in whole:
        raise UnsoundError("it has functions of its own")
    graph = _only(whole, schema.GRAPH)
    if graph is None:
        raise UnsoundError("it has no graph")
    if schema.SPARSE in graph:
        raise UnsoundError("it has sparse weights")
    weights = dict(_tensor(each) for each in graph.messages(schema.INITIALISER))
    if len(weights) != len(graph.fields.get(schema.INITIALISER, ())):
        raise UnsoundError("two weights have one name")
    inputs = dict(_input(each) for each in graph.messages(schema.INPUT))
    return OnnxGraph(
        [_node(each) for each in graph.messages(schema.NODE)],
        weights,
        {name: value for name, value in inputs.items() if name not in weights},
        [each.text(schema.VALUE_NAME) for each in graph.messages(schema.OUTPUT)],
    )


def _only(message: Message, number: int) -> Message | None:
    """Return the message of a field. Raises UnsoundError where it comes several times."""
    count = len(message.slices(number))
    if count > 1:
        raise UnsoundError(f"field {number} comes {count} times")
    return message.message(number)


def _tensor(tensor: Message) -> tuple[str, OnnxValue]:
    if schema.EXTERNAL_DATA in tensor or tensor.number(schema.DATA_LOCATION):
        raise UnsoundError("it keeps weights in another file")
    code, shape = tensor.number(schema.DATA_TYPE), tensor.numbers(schema.DIMS)
    dtype = schema.dtype_name(code)
    if dtype not in BYTES or len(shape) > MAX_RANK or not all(0 <= s < MAX_SIDES for s in shape):
        raise UnsoundError(f"weights have the type {dtype or code} and the shape {shape}")
    value = OnnxValue(shape, dtype, constant=True)
    _check_size(tensor, value)
    if dtype in ("int64", "int32") and value.elements <= MAX_INTEGERS:
        value.integers = _integers(tensor, value)
    if dtype == "float32" and value.elements <= MAX_RANK:
        value.floats = _floats(tensor)
    return tensor.text(schema.TENSOR_NAME), value


def _check_size(tensor: Message, value: OnnxValue) -> None:
    raw = tensor.slices(schema.RAW_DATA)
    typed = [number for number in schema.TYPED_DATA if number in tensor]
    if len(raw) + len(typed) > 1:
        raise UnsoundError("weights are there twice")
    if raw:
        count, rest = divmod(raw[0].stop - raw[0].start, BYTES[value.dtype])
    else:
        count, rest = sum(_count(tensor, number) for number in typed), 0
    if rest or count != value.elements:
        raise UnsoundError(f"weights of the shape {value.shape} have {count} numbers")


def _count(tensor: Message, number: int) -> int:
    """Return how many numbers a list has; the last byte of a varint is below 128."""
    width, total = schema.TYPED_DATA[number], 0
    for value in tensor.fields[number]:
        if isinstance(value, int):
            total += 1
        elif width:
            total += (value.stop - value.start) // width
        else:
            content = np.frombuffer(tensor.buffer, np.uint8, value.stop - value.start, value.start)
            total += int((content < 128).sum())
    return total


def _integers(tensor: Message, value: OnnxValue) -> Indices:
    raw = tensor.slices(schema.RAW_DATA)
    if raw:
        dtype = np.dtype(value.dtype).newbyteorder("<")
        numbers = np.frombuffer(tensor.buffer[raw[0]], dtype).astype(np.int64)
    else:
        number = schema.INT64_DATA if value.dtype == "int64" else schema.INT32_DATA
        numbers = np.array(tensor.numbers(number), np.int64)
    return numbers.reshape(value.shape)


def _floats(tensor: Message) -> tuple[float, ...]:
    data = [*tensor.slices(schema.RAW_DATA)[:1], *tensor.slices(schema.FLOAT_DATA)[:1]]
    if not data:
        return ()
    return struct.unpack_from(
        f"<{(data[0].stop - data[0].start) // 4}f", tensor.buffer, data[0].start
    )


def _input(described: Message) -> tuple[str, OnnxValue]:
    kind = _only(described, schema.VALUE_TYPE)
    tensor = None if kind is None else _only(kind, schema.TENSOR_TYPE)
    if tensor is None:
        raise UnsoundError("an input is no tensor")
    shape = _only(tensor, schema.SHAPE)
    sides = [] if shape is None else shape.messages(schema.DIM)
    # A side that has a name only is 1 here, as in the engines' ports.
    sizes = tuple(side.number(schema.DIM_VALUE, 1) for side in sides)
    if len(sizes) > MAX_RANK or not all(1 <= size < MAX_SIDES for size in sizes):
        raise UnsoundError(f"an input has the shape {sizes}")
    dtype = schema.dtype_name(tensor.number(schema.ELEMENT_TYPE))
    return described.text(schema.VALUE_NAME), OnnxValue(sizes, dtype, stored=False)


def _node(described: Message) -> OnnxNode:
    node = OnnxNode(
        described.text(schema.OP_TYPE),
        described.texts(schema.NODE_INPUT),
        described.texts(schema.NODE_OUTPUT),
    )
    for attribute in described.messages(schema.ATTRIBUTE):
        _attribute(attribute, node)
    return node


def _attribute(attribute: Message, node: OnnxNode) -> None:
    name = attribute.text(schema.ATTRIBUTE_NAME)
    if name in node.integers or name in node.texts or name in node.tensors:
        raise UnsoundError(f"{node.kind} has {name} twice")
    if any(number in attribute for number in schema.NESTED):
        raise UnsoundError(f"{node.kind} has graphs or lists of tensors in it")
    if (tensor := _only(attribute, schema.TENSOR)) is not None:
        node.tensors[name] = _tensor(tensor)[1]
    if schema.TEXT in attribute:
        node.texts[name] = attribute.text(schema.TEXT)
    if schema.INT in attribute:
        node.integers[name] = (attribute.number(schema.INT),)
    if schema.INTS in attribute:
        node.integers[name] = attribute.numbers(schema.INTS)
