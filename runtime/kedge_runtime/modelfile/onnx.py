"""Read ONNX files without the onnx package. Field numbers: onnx/onnx.proto."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from kedge_runtime.modelfile.check.onnx_graph import DTYPES
from kedge_runtime.modelfile.encodings import fields, parts, read_varint
from kedge_runtime.modelfile.network import Network, Operator, Scales, Value

OPSETS, OPSET_DOMAIN, OPSET_VERSION = 8, 1, 2  # ModelProto, OperatorSetIdProto
VALUE_INFO = 13  # GraphProto
TAKES, GIVES, DOMAIN = 1, 2, 7  # NodeProto
DIMS, DATA_TYPE, FLOATS, INT32S, INT64S, RAW = 1, 2, 4, 5, 7, 9  # TensorProto
PACKED = (FLOATS, INT32S, INT64S, RAW)
# Which end of it has the integers, which the real numbers.
QUANTISED = {"DequantizeLinear": ("inputs", "outputs"), "QuantizeLinear": ("outputs", "inputs")}


def read(content: memoryview) -> Network:
    """Return the graph of a file. Raises ValueError, IndexError, KeyError, struct.error."""
    model = bytes(content)
    graph = next(parts(model, GRAPH), None)
    if graph is None:
        raise ValueError("no graph in it")
    weights = [_initialiser(model, content, at) for at in parts(model, INITIALISER, graph)]
    ends = [
        [_described(model, at) for at in parts(model, part, graph)]
        for part in (INPUT, OUTPUT, VALUE_INFO)
    ]
    names = _Names(chain(weights, *ends))
    opsets = dict(_opsets(model))
    operators = tuple(_operator(model, at, names, opsets) for at in parts(model, NODE, graph))
    held = {value.name for value in weights}
    inputs = tuple(names.place(value.name) for value in ends[0] if value.name not in held)
    outputs = tuple(names.place(value.name) for value in ends[1])
    return _with_scales(Network("onnx", tuple(names.values), operators, inputs, outputs))


class _Names:
    """The places of values by name; one that no part of the file describes is made on its way."""

    def __init__(self, described: Iterator[Value]) -> None:
        self.values: list[Value] = []
        self._places: dict[str, int] = {}
        for value in described:
            if value.name not in self._places:
                self._add(value)

    def place(self, name: str) -> int:
        if not name:
            return -1
        return self._places[name] if name in self._places else self._add(Value(name, None, ""))

    def _add(self, value: Value) -> int:
        self._places[value.name] = len(self.values)
        self.values.append(value)
        return len(self.values) - 1


def _initialiser(model: bytes, content: memoryview, place: slice) -> Value:
    found = list(fields(model, place))
    data = [content[at] for number, at in found if number in PACKED and isinstance(at, slice)]
    return Value(
        _text(model, INITIALISER_NAME, place),
        tuple(_integers(model, DIMS, place)),
        _dtype(model, DATA_TYPE, place),
        data=next((each for each in data if len(each)), content[:0]),
    )


def _described(model: bytes, place: slice) -> Value:
    name, kind = _text(model, NAME, place), next(parts(model, TYPE, place), slice(0, 0))
    tensor = next(parts(model, TENSOR_TYPE, kind), None)
    if tensor is None:
        return Value(name, None, "")
    shape = next(parts(model, SHAPE, tensor), None)
    sides = None if shape is None else tuple(_side(model, at) for at in parts(model, DIM, shape))
    return Value(name, sides, _dtype(model, ELEMENT, tensor))


def _side(model: bytes, place: slice) -> int:
    return next(_integers(model, DIM_VALUE, place), -1)


def _opsets(model: bytes) -> Iterator[tuple[str, int]]:
    for place in parts(model, OPSETS):
        yield _text(model, OPSET_DOMAIN, place), next(_integers(model, OPSET_VERSION, place), 0)


def _operator(model: bytes, place: slice, names: _Names, opsets: dict[str, int]) -> Operator:
    domain = _text(model, DOMAIN, place)
    inputs, outputs = (
        tuple(names.place(model[at].decode()) for at in parts(model, number, place))
        for number in (TAKES, GIVES)
    )
    return Operator(_text(model, OP_TYPE, place), opsets.get(domain, 0), inputs, outputs)


def _with_scales(network: Network) -> Network:
    """Give the integers of every (De)QuantizeLinear their type, and their scales."""
    values = list(network.values)
    for operator in network.operators:
        ends = QUANTISED.get(operator.kind)
        if ends is None or min(operator.inputs[:2], default=-1) < 0:
            continue
        integer, real = (getattr(operator, end)[0] for end in ends)
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


def _integers(model: bytes, number: int, place: slice) -> Iterator[int]:
    """Yield a repeated integer, written one by one or packed."""
    for found, value in fields(model, place):
        if found != number:
            continue
        if isinstance(value, int):
            yield value
            continue
        at = value.start
        while at < value.stop:
            integer, at = read_varint(model, at)
            yield integer


def _dtype(model: bytes, number: int, place: slice) -> str:
    code = next(_integers(model, number, place), 0)
    return DTYPES[code] if code < len(DTYPES) else f"type{code}"


def _text(model: bytes, number: int, place: slice) -> str:
    return bytes(model[next(parts(model, number, place), slice(0, 0))]).decode(errors="replace")


GRAPH = 7  # ModelProto
NODE, INITIALISER, INPUT, OUTPUT = 1, 5, 11, 12  # GraphProto
OP_TYPE = 4  # NodeProto
INITIALISER_NAME = 8  # TensorProto
NAME, TYPE = 1, 2  # ValueInfoProto
TENSOR_TYPE = 1  # TypeProto
ELEMENT, SHAPE = 1, 2  # TypeProto.Tensor
DIM, DIM_VALUE = 1, 1  # TensorShapeProto and its Dimension

# TensorProto.DataType; the others have no numpy dtype that a contract could hold.
ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 10: "float16"}


@dataclass(frozen=True)
class GraphPort:
    """An input or output; a symbolic size is 1."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GraphOutline:
    """`operators`: the types of its nodes."""

    inputs: tuple[GraphPort, ...]
    outputs: tuple[GraphPort, ...]
    operators: frozenset[str]


def read_outline(model: bytes) -> GraphOutline:
    """Read a serialised ModelProto. Raises ValueError for bytes that are none."""
    try:
        graph = next(parts(model, GRAPH))
        weights = {
            _name_text(model, INITIALISER_NAME, at) for at in parts(model, INITIALISER, graph)
        }
        inputs = [_end(model, at) for at in parts(model, INPUT, graph)]
        outputs = [_end(model, at) for at in parts(model, OUTPUT, graph)]
        operators = frozenset(_name_text(model, OP_TYPE, at) for at in parts(model, NODE, graph))
    except (IndexError, KeyError, StopIteration, UnicodeDecodeError):
        raise ValueError("it is no ONNX model, or cut short") from None
    return GraphOutline(
        tuple(e for e in inputs if e.name not in weights), tuple(outputs), operators
    )


def _end(model: bytes, place: slice) -> GraphPort:
    (kind,) = parts(model, TYPE, place)
    (tensor,) = parts(model, TENSOR_TYPE, kind)
    shape = next(parts(model, SHAPE, tensor), slice(0, 0))
    sizes = tuple(_integer(model, DIM_VALUE, at, 1) for at in parts(model, DIM, shape))
    element = _integer(model, ELEMENT, tensor, 0)
    return GraphPort(_name_text(model, NAME, place), sizes, ELEMENTS.get(element, "object"))


def _integer(model: bytes, number: int, place: slice, default: int) -> int:
    found = (value for key, value in fields(model, place) if key == number)
    return next((value for value in found if isinstance(value, int)), default)


def _name_text(model: bytes, number: int, place: slice) -> str:
    return model[next(parts(model, number, place), slice(0, 0))].decode()
