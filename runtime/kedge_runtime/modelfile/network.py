"""Read the graph of a model file, sealed or not, without any engine, into records for all formats.

Each format has a module with `read(content) -> Network`.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from importlib import import_module

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.errors import ArtefactError
from kedge_runtime.frozen import dataclass
from kedge_runtime.modelfile.tflite_schema import ITEM_BYTES
from kedge_runtime.modelfile.unreadable import unreadable


@dataclass(frozen=True)
class Scales:
    """A tensor's quantisation: the number of scales, their range, the first zero point.

    One scale: per tensor; more: per channel.
    """

    count: int
    smallest: float
    largest: float
    zero_point: int = 0

    @classmethod
    def of(cls, numbers: Sequence[float], zero_point: int = 0) -> "Scales | None":
        """Summarise a tensor's scales, None for none. Raises ValueError for NaN and infinity."""
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a tensor's scale is no number")
        if not numbers:
            return None
        return cls(len(numbers), min(numbers), max(numbers), zero_point)


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    `shape`: None where the file doesn't state it; -1 is an open side. `data`: a constant's bytes in
    place, None for an activation.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    scales: Scales | None = None
    data: memoryview | None = field(default=None, compare=False, repr=False)

    @property
    def constant(self) -> bool:
        """Whether the file holds its numbers."""
        return self.data is not None

    @property
    def elements(self) -> int | None:
        """The number of its elements, or None where a side is open or unknown."""
        if self.shape is None or any(side < 0 for side in self.shape):
            return None
        return math.prod(self.shape)

    @property
    def bytes(self) -> int | None:
        """Its bytes in memory, or None where the shape or the type is unknown."""
        size = ITEM_BYTES.get(self.dtype)
        return None if size is None or self.elements is None else size * self.elements

    def integers(self) -> tuple[int, ...]:
        """Return a constant's integers, such as axes, paddings, sizes; () for other tensors."""
        kind = {"int32": "i", "int64": "q"}.get(self.dtype)
        if self.data is None or kind is None or self.data.nbytes != self.bytes:
            return ()
        return struct.unpack_from(f"<{self.elements or 0}{kind}", self.data)


@dataclass(frozen=True)
class Operator:
    """An operator; `kind`: its name in the format; `version`: the one that it requires.

    `inputs`, `outputs`: indices of Network.values; an absent input is -1. `options`: those that
    devices' rules need, by their name in the format's schema.
    """

    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A graph: operators in execution order; `inputs`, `outputs`: indices of values."""

    format: str
    values: tuple[Value, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def inputs_of(self, operator: Operator) -> tuple[Value, ...]:
        """Return the values that an operator reads, without absent ones."""
        return tuple(self.values[i] for i in operator.inputs if i >= 0)

    def outputs_of(self, operator: Operator) -> tuple[Value, ...]:
        """Return the values that an operator writes."""
        return tuple(self.values[i] for i in operator.outputs)

    def producers(self) -> dict[int, int]:
        """Return the index of the operator that writes each value, by the value's index."""
        return {value: i for i, each in enumerate(self.operators) for value in each.outputs}


# The exceptions when damaged bytes are read, and their numbers are used.
FAULTS = (ValueError, LookupError, TypeError, ArithmeticError, struct.error)


def read_network(content: ModelContent) -> "Network":
    """Read the graph of a .tflite or .onnx model. Raises ArtefactError for other bytes."""
    with readable(content):
        reader = import_module(f"{__package__}.{content.format}")
        network: Network = reader.read(memoryview(content.data))
        return network


@contextmanager
def readable(content: ModelContent) -> Iterator[None]:
    """Turn the block's FAULTS into ArtefactErrors about a file, with its kind where it has one."""
    try:
        yield
    except FAULTS as error:
        reason = unreadable(content.format, content.data, error)
        raise ArtefactError(f"{content.path}: {reason}") from None
