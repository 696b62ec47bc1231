"""Read the graph of an .onnx file for the check, and check each tensor of weights by itself.

Field numbers: onnx/onnx.proto. Of a field that may come once, Protocol Buffers take the last, and
merge messages: two of them are refused, as no writer makes them.
"""

import math
import struct
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from kedge_runtime.arrays import Indices
from kedge_runtime.modelfile.check.tflite_shapes import Shape, UnsoundError
from kedge_runtime.modelfile.encodings import fields, read_varint

_DTYPES = (
    "none float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 "
    "complex64 complex128 bfloat16"
)
DTYPES = _DTYPES.split()  # TensorProto.DataType
GRAPH, FUNCTIONS = 7, 25  # ModelProto
NODE, INITIALISER, INPUT, OUTPUT, SPARSE = 1, 5, 11, 12, 15  # GraphProto
TAKES, GIVES, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7  # NodeProto
ATTRIBUTE_NAME, FLOAT, INT, TEXT, TENSOR, INTS = 1, 2, 3, 4, 5, 8  # AttributeProto
SUBGRAPHS = (6, 11, 10, 22, 23)  # graphs, lists of tensors, sparse tensors
DIMS, DATA_TYPE, NAME, RAW, EXTERNAL_DATA, LOCATION = 1, 2, 8, 9, 13, 14  # TensorProto
TYPED = {4: 4, 5: 0, 7: 0, 10: 8, 11: 0}  # lists of numbers: bytes of one, 0 for varints
BYTES = {
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float64", "int64", "uint64"), 8),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
}
MAX_SIDES, MAX_RANK, MAX_HELD = 1 << 31, 8, 4096

Found = dict[int, list[int | slice]]


@dataclass(slots=True)
class OnnxValue:
    """A tensor: its shape as computed from the input's, its type where it is told.

    `held`: the numbers of a small list of integers, for axes and shapes; `numbers`: those of up to
    eight float32, for factors. `constant`: whether it is the same in every
    run; `stored`: whether the file holds its numbers.
    """

    shape: Shape
    dtype: str = ""
    constant: bool = False
    stored: bool = True
    held: Indices | None = None
    numbers: tuple[float, ...] | None = None

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


@dataclass(slots=True)
class OnnxNode:
    """An operator: `takes` and `gives` are names, "" for one that is left out."""

    kind: str
    takes: list[str]
    gives: list[str]
    integers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, OnnxValue] = field(default_factory=dict)


@dataclass(slots=True)
class OnnxGraph:
    """What a file describes."""

    nodes: list[OnnxNode]
    weights: dict[str, OnnxValue]
    inputs: dict[str, OnnxValue]
    outputs: list[str]


def read_graph(model: bytes) -> OnnxGraph:
    """Read a file. Raises UnsoundError, ValueError, IndexError, KeyError."""
    whole = _fields(model, slice(0, len(model)))
    if FUNCTIONS in whole:
        raise UnsoundError("it has functions of its own")
    place = _only(whole, GRAPH)
    if place is None:
        raise UnsoundError("it has no graph")
    found = _fields(model, place)
    if SPARSE in found:
        raise UnsoundError("it has sparse weights")
    weights = dict(_tensor(model, at) for at in _slices(found, INITIALISER))
    if len(weights) != len(found.get(INITIALISER, ())):
        raise UnsoundError("two weights have one name")
    inputs = dict(_input(model, at) for at in _slices(found, INPUT))
    return OnnxGraph(
        [_node(model, at) for at in _slices(found, NODE)],
        weights,
        {name: value for name, value in inputs.items() if name not in weights},
        [_text(model, _fields(model, at), 1) for at in _slices(found, OUTPUT)],
    )


def _fields(model: bytes, place: slice) -> Found:
    found: Found = defaultdict(list)
    for number, value in fields(model, place):
        found[number].append(value)
    return found


def _slices(found: Found, number: int) -> list[slice]:
    return [value for value in found.get(number, ()) if isinstance(value, slice)]


def _only(found: Found, number: int) -> slice | None:
    places = _slices(found, number)
    if len(places) > 1:
        raise UnsoundError(f"field {number} comes {len(places)} times")
    return places[0] if places else None


def _text(model: bytes, found: Found, number: int) -> str:
    places = _slices(found, number)
    return model[places[-1]].decode() if places else ""


def _numbers(model: bytes, found: Found, number: int) -> tuple[int, ...]:
    """Return a list of integers, written one by one or packed."""
    result: list[int] = []
    for value in found.get(number, ()):
        if isinstance(value, int):
            result.append(value)
            continue
        at = value.start
        while at < value.stop:
            integer, at = read_varint(model, at)
            result.append(integer)
    return tuple(value - (1 << 64) if value >> 63 else value for value in result)


def _last(model: bytes, found: Found, number: int, default: int = 0) -> int:
    return (_numbers(model, found, number) or (default,))[-1]


def _tensor(model: bytes, place: slice) -> tuple[str, OnnxValue]:
    found = _fields(model, place)
    if EXTERNAL_DATA in found or _last(model, found, LOCATION):
        raise UnsoundError("it keeps weights in another file")
    code = _last(model, found, DATA_TYPE)
    kind = DTYPES[code] if 0 <= code < len(DTYPES) else ""
    shape = _numbers(model, found, DIMS)
    if kind not in BYTES or len(shape) > MAX_RANK or not all(0 <= s < MAX_SIDES for s in shape):
        raise UnsoundError(f"weights have the type {kind or code} and the shape {shape}")
    value = OnnxValue(shape, kind, constant=True)
    _check_size(model, found, value)
    if kind in ("int64", "int32") and value.elements <= MAX_HELD:
        value.held = _held(model, found, value)
    if kind == "float32" and value.elements <= MAX_RANK:
        place = next((_slices(found, n)[0] for n in (RAW, 4) if _slices(found, n)), slice(0, 0))
        value.numbers = struct.unpack_from(
            f"<{(place.stop - place.start) // 4}f", model, place.start
        )
    return _text(model, found, NAME), value


def _check_size(model: bytes, found: Found, value: OnnxValue) -> None:
    raw = _slices(found, RAW)
    typed = [number for number in TYPED if number in found]
    if len(raw) + len(typed) > 1:
        raise UnsoundError("weights are there twice")
    if raw:
        count, left = divmod(raw[0].stop - raw[0].start, BYTES[value.dtype])
    else:
        count, left = sum(_count(model, found, number) for number in typed), 0
    if left or count != value.elements:
        raise UnsoundError(f"weights of the shape {value.shape} have {count} numbers")


def _count(model: bytes, found: Found, number: int) -> int:
    """Return how many numbers a list has; the last byte of a varint is below 128."""
    width, total = TYPED[number], 0
    for value in found[number]:
        if isinstance(value, int):
            total += 1
        elif width:
            total += (value.stop - value.start) // width
        else:
            content = np.frombuffer(model, np.uint8, value.stop - value.start, value.start)
            total += int((content < 128).sum())
    return total


def _held(model: bytes, found: Found, value: OnnxValue) -> Indices:
    raw = _slices(found, RAW)
    if raw:
        kind = np.dtype(value.dtype).newbyteorder("<")
        numbers = np.frombuffer(model[raw[0]], kind).astype(np.int64)
    else:
        numbers = np.array(_numbers(model, found, 7 if value.dtype == "int64" else 5), np.int64)
    return numbers.reshape(value.shape)


def _input(model: bytes, place: slice) -> tuple[str, OnnxValue]:
    found = _fields(model, place)
    kind = _only(found, 2)
    tensor = None if kind is None else _only(_fields(model, kind), 1)
    if tensor is None:
        raise UnsoundError("an input is no tensor")
    described = _fields(model, tensor)
    code, shape = _last(model, described, 1), _only(described, 2)
    sides = [] if shape is None else _slices(_fields(model, shape), 1)
    # A side that has a name only is 1 here, as in the engines' ports.
    sizes = tuple(_last(model, _fields(model, at), 1, 1) for at in sides)
    if len(sizes) > MAX_RANK or not all(1 <= size < MAX_SIDES for size in sizes):
        raise UnsoundError(f"an input has the shape {sizes}")
    return _text(model, found, 1), OnnxValue(
        sizes, DTYPES[code] if 0 <= code < len(DTYPES) else "", stored=False
    )


def _node(model: bytes, place: slice) -> OnnxNode:
    found = _fields(model, place)
    node = OnnxNode(
        _text(model, found, OP_TYPE),
        [model[at].decode() for at in _slices(found, TAKES)],
        [model[at].decode() for at in _slices(found, GIVES)],
    )
    for at in _slices(found, ATTRIBUTE):
        _attribute(model, _fields(model, at), node)
    return node


def _attribute(model: bytes, found: Found, node: OnnxNode) -> None:
    name = _text(model, found, ATTRIBUTE_NAME)
    if name in node.integers or name in node.texts or name in node.tensors:
        raise UnsoundError(f"{node.kind} has {name} twice")
    if any(number in found for number in SUBGRAPHS):
        raise UnsoundError(f"{node.kind} has graphs or lists of tensors in it")
    if (tensor := _only(found, TENSOR)) is not None:
        node.tensors[name] = _tensor(model, tensor)[1]
    if TEXT in found:
        node.texts[name] = _text(model, found, TEXT)
    if INT in found:
        node.integers[name] = (_last(model, found, INT),)
    if INTS in found:
        node.integers[name] = _numbers(model, found, INTS)
