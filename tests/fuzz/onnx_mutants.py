"""Change one or two things in an .onnx file so that it stays a valid protocol buffer."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fuzz.tflite_mutants import FLOATS, integer

Pick = random.Random
TYPES = tuple(range(17))


def mutate(content: bytes, pick: Pick) -> bytes:
    """Return a file with one to three changes."""
    model = onnx.load_from_string(content)
    for _ in range(pick.choice((1, 1, 1, 2, 2, 3))):
        kinds, weights = zip(*MUTATIONS.items(), strict=True)
        pick.choices(kinds, weights)[0](model.graph, pick)
    if pick.random() < 0.03 and model.opset_import:
        model.opset_import[0].version = pick.randrange(1, 25)
    return bytes(model.SerializeToString())


def _names(graph: Any) -> list[str]:
    names = [value.name for value in graph.initializer] + [value.name for value in graph.input]
    return names + [name for node in graph.node for name in node.output] + ["", "nowhere"]


def operands(graph: Any, pick: Pick) -> None:
    """Read or write other values."""
    node = pick.choice(graph.node)
    names = node.output if pick.random() < 0.15 else node.input
    way = pick.randrange(6)
    if way == 0 or not names:
        names.append(pick.choice(_names(graph)))
    elif way == 1:
        del names[pick.randrange(len(names))]
    else:
        names[pick.randrange(len(names))] = pick.choice(_names(graph))


def attributes(graph: Any, pick: Pick) -> None:
    """Change, lose or add an attribute of a node."""
    node = pick.choice([each for each in graph.node if each.attribute] or list(graph.node))
    if not node.attribute or pick.random() < 0.05:
        name = pick.choice(("axis", "group", "pads", "strides", "dilations", "perm", "auto_pad"))
        value: Any = "SAME_UPPER" if name == "auto_pad" else integer(pick)
        if name not in ("axis", "group", "auto_pad"):
            value = [integer(pick) for _ in range(pick.randrange(1, 5))]
        node.attribute.append(helper.make_attribute(name, value))
        return
    attribute = pick.choice(node.attribute)
    if pick.random() < 0.1:
        node.attribute.remove(attribute)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = integer(pick, attribute.i)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = pick.choice(FLOATS)
    elif attribute.type == onnx.AttributeProto.INTS:
        _listed(attribute.ints, pick)
    elif attribute.type == onnx.AttributeProto.TENSOR:
        _tensor(attribute.t, pick)
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = pick.choice((b"", b"SAME_UPPER", b"VALID", b"linear", b"reflect", b"\xff"))


def _listed(numbers: Any, pick: Pick) -> None:
    way = pick.randrange(8)
    if way == 0 or not numbers:
        numbers.append(integer(pick))
    elif way == 1:
        del numbers[pick.randrange(len(numbers))]
    else:
        at = pick.randrange(len(numbers))
        numbers[at] = integer(pick, numbers[at])


def weights(graph: Any, pick: Pick) -> None:
    """Change the shape, the type, the numbers or the place of weights."""
    if graph.initializer:
        _tensor(pick.choice(graph.initializer), pick)


def _tensor(tensor: Any, pick: Pick) -> None:
    way = pick.randrange(8)
    if way == 0:
        tensor.data_type = pick.choice(TYPES)
    elif way == 1:
        tensor.raw_data = tensor.raw_data[: pick.randrange(len(tensor.raw_data) + 1)]
    elif way == 2:
        tensor.data_location = TensorProto.EXTERNAL
    elif tensor.data_location == TensorProto.EXTERNAL:
        tensor.data_location = TensorProto.DEFAULT
    elif way in (3, 4) and tensor.data_type in (TensorProto.INT64, TensorProto.INT32):
        values = numpy_helper.to_array(tensor).copy().reshape(-1)
        if values.size:
            at = pick.randrange(values.size)
            values[at] = integer(pick, int(values[at]))
            fresh = numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name)
            tensor.CopyFrom(fresh)
    else:
        _listed(tensor.dims, pick)
        if pick.random() < 0.7:
            _fit(tensor)


def _fit(tensor: Any) -> None:
    """Give weights as many numbers as their shape asks for."""
    count = int(np.prod([max(0, side) for side in tensor.dims], dtype=np.float64))
    if count < 1 << 18 and tensor.raw_data:
        size = {1: 4, 6: 4, 7: 8, 11: 8, 10: 2}.get(tensor.data_type, 1)
        old = np.frombuffer(tensor.raw_data, np.uint8)
        tensor.raw_data = np.resize(old, count * size).tobytes()


def kinds(graph: Any, pick: Pick) -> None:
    """Let a node be of another kind."""
    node = pick.choice(graph.node)
    node.op_type = pick.choice([each.op_type for each in graph.node] + KINDS)


_KINDS = """
Relu Add Conv MaxPool Reshape Transpose Concat Slice Gather Pad Split ReduceMean Gemm MatMul
BatchNormalization Resize Expand Tile Softmax ConvTranspose AveragePool Flatten Squeeze Clip
DepthToSpace LSTM Einsum Where ScatterND NonMaxSuppression Loop If RoiAlign Upsample
"""
KINDS = _KINDS.split()


def order(graph: Any, pick: Pick) -> None:
    """Swap, repeat or lose a node."""
    i, j = pick.randrange(len(graph.node)), pick.randrange(len(graph.node))
    way = pick.randrange(3)
    if way == 0:
        first, second = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(graph.node[i])
        second.CopyFrom(graph.node[j])
        graph.node[i].CopyFrom(second)
        graph.node[j].CopyFrom(first)
    elif way == 1:
        graph.node.insert(i, graph.node[j])
    else:
        del graph.node[i]


def ends(graph: Any, pick: Pick) -> None:
    """State another input shape, type or name."""
    value = pick.choice([*graph.input, *graph.output])
    tensor = value.type.tensor_type
    way = pick.randrange(5)
    if way == 0:
        tensor.elem_type = pick.choice(TYPES)
    elif way == 1:
        value.name = pick.choice(_names(graph))
    elif tensor.shape.dim:
        side = pick.choice(tensor.shape.dim)
        if pick.random() < 0.2:
            side.dim_param = "n"
        else:
            side.dim_value = integer(pick, side.dim_value)


# How often each of them is made.
MUTATIONS: dict[Callable[[Any, Pick], None], int] = {
    operands: 20,
    attributes: 25,
    weights: 25,
    kinds: 8,
    order: 5,
    ends: 7,
}
