"""Read a float TFLite file as operations on tensors, its constants as numpy arrays."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.modelfile.network import readable

Array = NDArray[Any]
# TensorType of schema.fbs -> the dtype of constants that an import can need.
_DTYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}


@dataclass(frozen=True)
class ProgramTensor:
    """A tensor; `shape`: batch included, which is 1; `constant`: its numbers, if it has any.

    `kind`: the name of its type (schema.fbs: TensorType).
    """

    name: str
    shape: tuple[int, ...]
    constant: Array | None = None
    kind: str = ""


@dataclass(frozen=True)
class Operation:
    """An operator; `inputs`, `outputs`: indices of Program.tensors, -1 for an absent input.

    `options`: the schema's record of its builtin options, or None.
    """

    kind: str
    options: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Operations in execution order; `inputs`, `outputs`: indices of tensors."""

    tensors: tuple[ProgramTensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_file(content: ModelContent) -> Program:
    """Return the main graph of somebody's file. Raises ArtefactError for a damaged one.

    The check reads no more than what engines trust; the schema's classes read names, too.
    """
    with readable(content):
        return read(content.data)


def read(content: bytes) -> Program:
    """Return the main graph of a file that was checked (modelfile/check).

    Other graphs belong to operators of control flow, which no rule imports.
    """
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    operations = [
        Operation(kind, each.builtinOptions, _indices(each.inputs), _indices(each.outputs))
        for kind, each in flatbuffer.operators(model)
    ]
    tensors = tuple(_tensor(model, each) for each in graph.tensors)
    ends = _indices(graph.inputs), _indices(graph.outputs)
    return Program(tensors, tuple(operations), *ends)


class Wired(Protocol):
    """An operation by the values that it reads and writes: numbers, or names."""

    @property
    def inputs(self) -> Sequence[Hashable]:
        """The values that it reads."""

    @property
    def outputs(self) -> Sequence[Hashable]:
        """The values that it writes."""


_Wired = TypeVar("_Wired", bound=Wired)


def needed(operations: Sequence[_Wired], outputs: Iterable[Hashable]) -> list[_Wired]:
    """Return the operations that the outputs of a program depend on, in order."""
    wanted, kept = set(outputs), list[_Wired]()
    for operation in reversed(operations):
        if wanted.intersection(operation.outputs):
            wanted.update(operation.inputs)
            kept.append(operation)
    return kept[::-1]


def _indices(numbers: Any) -> tuple[int, ...]:
    return () if numbers is None else tuple(map(int, numbers))


def _tensor(model: Any, tensor: Any) -> ProgramTensor:
    name, shape = (tensor.name or b"").decode(errors="replace"), flatbuffer.shape(tensor)
    data = model.buffers[tensor.buffer].data
    kinds = {value: key for key, value in vars(flatbuffer.schema().TensorType).items()}
    kind = kinds.get(tensor.type, "")
    dtype = _DTYPES.get(kind)
    size = math.prod(shape) * np.dtype(dtype).itemsize if dtype else 0
    # Sparse tensors hold fewer numbers than their shape has; no rule finds theirs.
    if data is None or dtype is None or len(data) != size or not size:
        return ProgramTensor(name, shape, kind=kind)
    return ProgramTensor(name, shape, np.asarray(data).view(dtype).reshape(shape), kind)
