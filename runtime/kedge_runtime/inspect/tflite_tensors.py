"""Read every subgraph of a .tflite file for the check, and check each tensor by itself."""

import math
from typing import NamedTuple

from kedge_runtime.flatbuffer import Table, root
from kedge_runtime.inspect import tflite_fields as tflite
from kedge_runtime.inspect.tflite_names import DTYPES, ITEM_BYTES
from kedge_runtime.inspect.tflite_shapes import Tensor, UnsoundError

# What a network of images is far below of: of the zoo the largest takes 120 MB.
MAX_MEMORY = 320 << 20
MAX_RANK, MAX_GRAPHS = 8, 64

SPARSITY, VARIABLE, AXIS = 6, 5, 6  # Tensor, Tensor, QuantizationParameters
# Kernels for sound and detection that LiteRT brings by name; nothing bounds what they are given.
CUSTOM_KERNELS = frozenset(
    ("AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess")
)
ZERO_POINTS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (0, 0), "int4": (-8, 7)}


class Graph(NamedTuple):
    """A subgraph; its operators stay tables."""

    tensors: list[Tensor]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: list[Table]


class Model(NamedTuple):
    """`codes`: the name and the version of each kind of operator."""

    codes: list[tuple[str, int]]
    graphs: list[Graph]


def read_model(content: memoryview) -> Model:
    """Read a file. Raises UnsoundError, ValueError, IndexError, struct.error."""
    model = root(content, tflite.IDENTIFIER)
    codes = [tflite.operator_code(table) for table in model.tables(tflite.CODES)]
    if found := CUSTOM_KERNELS.intersection(kind for kind, _ in codes):
        raise UnsoundError(f"it has the operator {min(found)}")
    buffers = [tflite.buffer_data(table) for table in model.tables(tflite.BUFFERS)]
    graphs = [_graph(table, buffers) for table in model.tables(tflite.SUBGRAPHS)]
    if not 1 <= len(graphs) <= MAX_GRAPHS:
        raise UnsoundError(f"it has {len(graphs)} subgraphs")
    return Model(codes, graphs)


def _graph(table: Table, buffers: list[memoryview | None]) -> Graph:
    tensors = [_tensor(each, buffers) for each in table.tables(tflite.TENSORS)]
    inputs, outputs = table.numbers(tflite.INPUTS, "i"), table.numbers(tflite.OUTPUTS, "i")
    for place in (*inputs, *outputs):
        if not 0 <= place < len(tensors):
            raise UnsoundError(f"a subgraph begins or ends at tensor {place} of {len(tensors)}")
    if len(set(inputs)) < len(inputs) or any(tensors[i].data is not None for i in inputs):
        raise UnsoundError("an input is a constant, or there twice")
    return Graph(tensors, inputs, outputs, list(table.tables(tflite.OPERATOR_LIST)))


def _tensor(table: Table, buffers: list[memoryview | None]) -> Tensor:
    shape, kind = table.numbers(tflite.SHAPE, "i"), table.number(tflite.DTYPE, "b")
    place = table.number(tflite.BUFFER, "I")
    if place >= len(buffers):
        raise UnsoundError(f"a tensor lies in buffer {place} of {len(buffers)}")
    if not 0 <= kind < len(DTYPES) or len(shape) > MAX_RANK:
        raise UnsoundError(f"a tensor has type {kind} and {len(shape)} dimensions")
    if table.table(SPARSITY) is not None:
        raise UnsoundError("a tensor is sparse")
    tensor = Tensor(shape, DTYPES[kind], buffers[place], variable=bool(table.number(VARIABLE, "?")))
    _check_sides(tensor)
    if (quantisation := table.table(tflite.QUANTISATION)) is not None:
        _check_scales(tensor, quantisation)
    return tensor


def _check_sides(tensor: Tensor) -> None:
    """Sides are 1 and more, but for an empty list; a constant has the bytes that they ask for."""
    if tensor.shape and min(tensor.shape) < 1 and tensor.shape != (0,):
        raise UnsoundError(f"a tensor has the shape {tensor.shape}")
    if tensor.data is None:
        if tensor.bytes > MAX_MEMORY:
            raise UnsoundError(f"a tensor of shape {tensor.shape} takes too much memory")
        return
    if tensor.variable:
        raise UnsoundError("a variable has constant numbers")
    if tensor.dtype in ITEM_BYTES or tensor.dtype == "int4":
        wanted = (tensor.elements + 1) // 2 if tensor.dtype == "int4" else tensor.bytes
        if tensor.data.nbytes != wanted:
            raise UnsoundError(f"a constant of {wanted} bytes has {tensor.data.nbytes}")


def _check_scales(tensor: Tensor, table: Table) -> None:
    scales, zeros = table.numbers(tflite.SCALE, "f"), table.numbers(tflite.ZERO_POINT, "q")
    if not scales:
        return
    tensor.scales, tensor.axis = len(scales), table.number(AXIS, "i")
    # What is no number makes the sum none, and no comparison with it holds.
    if not (min(scales) > 0 and sum(scales) < math.inf):
        raise UnsoundError("a tensor has a scale that is no positive number")
    if len(zeros) != len(scales):
        raise UnsoundError(f"a tensor has {len(scales)} scales and {len(zeros)} zero points")
    axis, shape = tensor.axis, tensor.shape
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise UnsoundError(f"a tensor of shape {shape} has {len(scales)} scales along axis {axis}")
    low, high = ZERO_POINTS.get(tensor.dtype, (-(2**31), 2**31 - 1))
    for zero in set(zeros):
        if not low <= zero <= high:
            raise UnsoundError(f"a tensor of {tensor.dtype} has the zero point {zero}")
