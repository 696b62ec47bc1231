"""What an ONNX graph says of its ends and operators, read without onnx, for engines that don't.

Field numbers: onnx/onnx.proto. A graph's inputs may list its weights too (IR version < 4).
"""

from dataclasses import dataclass

from kedge_runtime.protobuf import fields, parts

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
class End:
    """An input or output; a symbolic size is 1."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Graph:
    """`operators`: the types of its nodes."""

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    operators: frozenset[str]


def read_graph(model: bytes) -> Graph:
    """Read a serialised ModelProto. Raises ValueError for bytes that are none."""
    try:
        graph = next(parts(model, GRAPH))
        weights = {_text(model, INITIALISER_NAME, at) for at in parts(model, INITIALISER, graph)}
        inputs = [_end(model, at) for at in parts(model, INPUT, graph)]
        outputs = [_end(model, at) for at in parts(model, OUTPUT, graph)]
        operators = frozenset(_text(model, OP_TYPE, at) for at in parts(model, NODE, graph))
    except (IndexError, KeyError, StopIteration, UnicodeDecodeError):
        raise ValueError("it is no ONNX model, or cut short") from None
    return Graph(tuple(e for e in inputs if e.name not in weights), tuple(outputs), operators)


def _end(model: bytes, place: slice) -> End:
    (kind,) = parts(model, TYPE, place)
    (tensor,) = parts(model, TENSOR_TYPE, kind)
    shape = next(parts(model, SHAPE, tensor), slice(0, 0))
    sizes = tuple(_integer(model, DIM_VALUE, at, 1) for at in parts(model, DIM, shape))
    element = _integer(model, ELEMENT, tensor, 0)
    return End(_text(model, NAME, place), sizes, ELEMENTS.get(element, "object"))


def _integer(model: bytes, number: int, place: slice, default: int) -> int:
    found = (value for key, value in fields(model, place) if key == number)
    return next((value for value in found if isinstance(value, int)), default)


def _text(model: bytes, number: int, place: slice) -> str:
    return model[next(parts(model, number, place), slice(0, 0))].decode()
