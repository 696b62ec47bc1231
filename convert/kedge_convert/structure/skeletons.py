"""What the structural checks look at, read from a file of either format."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.formats import flatbuffer
from kedge_convert.toolkit import require

Shape = tuple[int | None, ...]

# Left behind when a converter meant to freeze variables and did not.
VARIABLES = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"})
STANDARD = frozenset({"", "ai.onnx"})


@dataclass(frozen=True)
class Skeleton:
    """A network without its numbers. Shapes have None for what isn't fixed.

    `foreign`: operators that standard engines lack. `numbers`: how many constants hold together.
    """

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    operators: tuple[str, ...]
    foreign: tuple[str, ...]
    numbers: int
    finite: bool


def _tflite(content: bytes) -> Skeleton:
    model = flatbuffer.unpack(content)
    if content[4:8] != flatbuffer.IDENTIFIER or len(model.subgraphs) != 1:
        raise ValueError("no TFLite file of one graph")
    graph = model.subgraphs[0]
    named = [name for name, _ in flatbuffer.operators(model)]
    constants = [each for each in graph.tensors if not _is_empty(model.buffers[each.buffer].data)]
    return Skeleton(
        inputs=_tflite_ends(graph, graph.inputs),
        outputs=_tflite_ends(graph, graph.outputs),
        operators=tuple(named),
        foreign=tuple(name for name in named if name.startswith("CUSTOM") or name in VARIABLES),
        numbers=sum(math.prod(flatbuffer.shape(each)) for each in constants),
        finite=all(_finite(_tflite_floats(model, each)) for each in constants),
    )


def _is_empty(data: Any) -> bool:
    return data is None or len(data) == 0


def _tflite_ends(graph: Any, indices: Any) -> dict[str, Shape]:
    tensors = [graph.tensors[i] for i in indices]
    return {each.name.decode(): _tflite_shape(each) for each in tensors}


def _tflite_shape(tensor: Any) -> Shape:
    # The signature, where there is one, has -1 for what may change.
    signature = tensor.shapeSignature
    sizes = flatbuffer.shape(tensor) if _is_empty(signature) else signature
    return tuple(None if size < 0 else int(size) for size in sizes)


def _tflite_floats(model: Any, tensor: Any) -> NDArray[Any]:
    kinds = flatbuffer.schema().TensorType
    dtype = {kinds.FLOAT32: "<f4", kinds.FLOAT16: "<f2"}.get(tensor.type)
    return np.asarray(model.buffers[tensor.buffer].data).view(dtype) if dtype else np.zeros(0)


def _onnx(content: bytes) -> Skeleton:
    onnx = require("onnx")
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in graph.initializer):
        raise ValueError("its weights lie in another file")
    return Skeleton(
        inputs={each.name: _onnx_shape(each) for each in graph.input},
        outputs={each.name: _onnx_shape(each) for each in graph.output},
        operators=tuple(each.op_type for each in graph.node),
        foreign=tuple(
            f"{each.domain}.{each.op_type}" for each in graph.node if each.domain not in STANDARD
        ),
        numbers=sum(math.prod(each.dims) for each in graph.initializer),
        finite=all(_finite(_onnx_floats(onnx, each)) for each in graph.initializer),
    )


def _onnx_shape(value: Any) -> Shape:
    sizes = value.type.tensor_type.shape.dim
    return tuple(each.dim_value if each.HasField("dim_value") else None for each in sizes)


def _onnx_floats(onnx: Any, tensor: Any) -> NDArray[Any]:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return onnx.numpy_helper.to_array(tensor) if tensor.data_type in floats else np.zeros(0)


def _finite(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all())


READERS: dict[str, Callable[[bytes], Skeleton]] = {"tflite": _tflite, "onnx": _onnx}
"""Format -> the reader of a file's bytes; it raises whatever it breaks on."""
