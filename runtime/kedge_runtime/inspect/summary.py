"""What a person wants to know of a Network: counts instead of a thousand tensors."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kedge_runtime.inspect.memory import arena
from kedge_runtime.inspect.network import Network, Operator, Scales, Value

Role = Literal["weights", "activations"]
Granularity = Literal["channel", "tensor", "none"]


@dataclass(frozen=True)
class OperatorCount:
    """So many operators of a kind and version, whose first output is of a type."""

    kind: str
    version: int
    dtype: str
    count: int


@dataclass(frozen=True)
class QuantisationCount:
    """So many tensors of one role and type, quantised per `channel`, per `tensor` or not at all.

    `kind`: the operator that reads the weights; empty for activations. `smallest`, `largest`: the
    range of all their scales, 0 without any.
    """

    role: Role
    kind: str
    dtype: str
    granularity: Granularity
    count: int
    smallest: float
    largest: float


@dataclass(frozen=True)
class Summary:
    """`arena`: bytes of the activations at once, None where the file doesn't state all shapes.

    `weights`: bytes of all constants.
    """

    operators: tuple[OperatorCount, ...]
    quantisation: tuple[QuantisationCount, ...]
    arena: int | None
    weights: int


def summarise(network: Network) -> Summary:
    """Count a network's operators and quantisations, and plan its memory."""
    kinds = Counter(
        (each.kind, each.version, next((v.dtype for v in network.written_by(each)), ""))
        for each in network.operators
    )
    operators = [OperatorCount(*key, count) for key, count in sorted(kinds.items())]
    operators.sort(key=lambda row: -row.count)
    return Summary(tuple(operators), quantisation(network), arena(network), weights(network))


def weights(network: Network) -> int:
    """Return the bytes of all constants; what several tensors share counts once."""
    held = {id(value.data): value.data for value in network.values if value.data is not None}
    return sum(data.nbytes for data in held.values())


def quantisation(network: Network) -> tuple[QuantisationCount, ...]:
    """Count tensors by role, reader, type and granularity; shapes, axes and biases are left out."""
    groups: defaultdict[tuple[Role, str, str, Granularity], list[Scales]] = defaultdict(list)
    for role, kind, value in _tensors(network):
        scales = value.scales or Scales(0, 0.0, 0.0)
        groups[role, kind, value.dtype, granularity(value)].append(scales)
    return tuple(
        QuantisationCount(
            *key, len(found), min(s.smallest for s in found), max(s.largest for s in found)
        )
        for key, found in groups.items()
    )


def granularity(value: Value) -> Granularity:
    """Tell how many scales a tensor has: none, one, or one a channel."""
    if value.scales is None:
        return "none"
    return "tensor" if value.scales.count == 1 else "channel"


def _tensors(network: Network) -> Iterator[tuple[Role, str, Value]]:
    """Yield the weights by the operator that reads them, then the activations, each once."""
    readers: dict[int, Operator] = {}
    for operator in network.operators:
        for place in operator.inputs:
            readers.setdefault(place, operator)
    for place, value in enumerate(network.values):
        if place in readers and is_weight(value):
            yield "weights", _kernel_of(readers[place], readers), value
    written = {place for operator in network.operators for place in operator.outputs}
    for place in sorted(written.union(network.inputs)):
        if network.values[place].dtype:
            yield "activations", "", network.values[place]


def _kernel_of(reader: Operator, readers: dict[int, Operator]) -> str:
    """Return what computes with weights; in ONNX they come to it by way of DequantizeLinear."""
    if reader.kind == "DequantizeLinear" and reader.outputs[0] in readers:
        return readers[reader.outputs[0]].kind
    return reader.kind


def is_weight(value: Value) -> bool:
    """Tell a kernel from biases, shapes and scales: a constant of more than one dimension."""
    return value.constant and len(value.shape or ()) > 1
