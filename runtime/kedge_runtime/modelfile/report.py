"""Summarise a model file: sizes, memory, operators, quantisation.

`kedge inspect` shows this report; devices are checked against it.
"""

import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kedge_runtime.artefact.content import DIGEST_BYTES, ModelContent, read_content
from kedge_runtime.artefact.contract import Contract, Precision
from kedge_runtime.artefact.file import CONTRACT, GOLDEN, LABELS, artefact_of, ends_in_digest
from kedge_runtime.artefact.onnx import KEY, METADATA_PROPS
from kedge_runtime.modelfile.archives import FAULTS, opened
from kedge_runtime.modelfile.check.check import check_model
from kedge_runtime.modelfile.encodings import parts
from kedge_runtime.modelfile.network import Network, Operator, Scales, Value
from kedge_runtime.modelfile.reading import read_network, readable

# What is sealed into a file -> what it is called here.
MEMBERS = {CONTRACT: "contract", GOLDEN: "golden", "kedge/digest": "digest"} | dict.fromkeys(
    LABELS.values(), "labels"
)


def sizes(content: ModelContent, network: Network) -> dict[str, int]:
    """Return the bytes of each part of a file; together they are all of it.

    `graph` is everything that no other part claims. Raises ArtefactError for broken metadata.
    """
    with readable(content.path):
        found = {"weights": weights(network), **_MEMBER_SIZES[network.form](content.data)}
    return {"graph": len(content.data) - sum(found.values()), **found}


def model_end(model: bytes) -> int:
    """Return where the archive behind a .tflite model begins, or their end without one."""
    members, _ = _archive(model)
    return min((info.header_offset for info in members), default=len(model))


def _archive(model: bytes) -> tuple[list[zipfile.ZipInfo], bytes]:
    """Return the members of the archive behind a model and its comment, or nothing."""
    try:
        with opened(io.BytesIO(model)) as archive:
            return archive.infolist(), archive.comment
    except FAULTS:
        return [], b""


def _tflite_members(model: bytes) -> dict[str, int]:
    members, comment = _archive(model)
    digest = {"digest": len(comment)} if len(comment) == DIGEST_BYTES else {}
    return {
        MEMBERS.get(each.filename, each.filename): each.compress_size for each in members
    } | digest


def _onnx_members(model: bytes) -> dict[str, int]:
    found = {}
    for place in parts(model, METADATA_PROPS):
        # Protocol Buffers leave an empty key out.
        at = next(parts(model, KEY, place), slice(0, 0))
        key = model[at].decode(errors="replace") or "(no key)"
        found[MEMBERS.get(key, key)] = place.stop - place.start
    return found


_MEMBER_SIZES = {"tflite": _tflite_members, "onnx": _onnx_members}


ALIGNMENT = 64  # bytes: kDefaultTensorAlignment of tensorflow/lite/util.h
MAX_PLANNED = 5000  # activations; the plan takes their square


@dataclass(frozen=True)
class Life:
    """An activation's aligned size in bytes, and the first and the last operator that need it."""

    size: int
    first: int
    last: int


def arena(network: Network) -> int | None:
    """Return the bytes of the arena, or None where a shape is open or unknown."""
    found = lives(network)
    if found is None or len(found) > MAX_PLANNED:
        return None
    placed: list[tuple[int, Life]] = []
    for life in sorted(found, key=lambda life: (-life.size, life.first)):
        placed.append((_gap(life, placed), life))
    return max((offset + life.size for offset, life in placed), default=0)


def lives(network: Network) -> list[Life] | None:
    """Return every activation's life, or None where one's size can't be told."""
    end = len(network.operators)
    spans = {place: [0, 0] for place in network.inputs}
    for i, operator in enumerate(network.operators):
        for place in (*operator.inputs, *operator.outputs):
            if place >= 0 and not network.values[place].constant:
                spans.setdefault(place, [i, i])[1] = i
    for place in network.outputs:
        spans.setdefault(place, [end, end])[1] = end
    sizes = {place: network.values[place].bytes for place in spans}
    if None in sizes.values():
        return None
    return [Life(_aligned(sizes[place] or 0), *span) for place, span in spans.items()]


def _gap(life: Life, placed: list[tuple[int, Life]]) -> int:
    """Return the offset of the smallest gap that holds `life`, else the end of what is placed."""
    taken = sorted(
        (offset, offset + other.size)
        for offset, other in placed
        if other.first <= life.last and life.first <= other.last
    )
    end, best = 0, None
    for start, stop in taken:
        room = start - end
        if room >= life.size and (best is None or room < best[0]):
            best = (room, end)
        end = max(end, stop)
    return end if best is None else best[1]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


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


INTEGER = frozenset({"int8", "uint8"})


def precision_of(network: Network) -> Precision:
    """Return the precision that the weights and the activations together make.

    `unknown`: weights that no precision of kedge's has, or none, as in a compiled file.
    """
    kernels = {value.dtype for value in network.values if is_weight(value)}
    quantised = {
        value.dtype for value in network.values if value.scales is not None and not value.constant
    }
    if kernels & INTEGER:
        return _integer(quantised, bool(kernels & {"float32", "float16"}))
    if "float16" in kernels:
        return "float16"
    return "float32" if "float32" in kernels else "unknown"


def _integer(quantised: set[str], floats: bool) -> Precision:
    """Tell apart what the integer weights meet: floats, 8 bits, 16 bits, or several of them."""
    if not quantised & {*INTEGER, "int16"}:
        return "dynamic"
    if floats:
        return "mixed"
    return "int16x8" if "int16" in quantised else "int8"


@dataclass(frozen=True)
class FileReport:
    """`contract` is None for a file that kedge didn't seal. `sizes`: bytes by part."""

    path: Path
    network: Network
    summary: Summary
    sizes: dict[str, int]
    precision: Precision
    contract: Contract | None


def inspect(path: Path) -> FileReport:
    """Read a file.

    Raises ArtefactError when it is no model, an invalid one, or sealed and changed since.
    """
    content = read_content(path)
    check_model(content)
    network = read_network(content)
    contract = artefact_of(content).contract if ends_in_digest(content.data) else None
    precision = contract.provenance.precision if contract else precision_of(network)
    return FileReport(
        path, network, summarise(network), sizes(content, network), precision, contract
    )
