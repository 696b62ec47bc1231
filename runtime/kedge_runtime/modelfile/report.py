"""Summarise a model file: sizes, memory, operators, quantisation.

`kedge inspect` shows this report; devices are checked against it.
"""

import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kedge_runtime.artefact.content import DIGEST_BYTES, ModelContent, read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import CONTRACT, GOLDEN, LABELS, artefact_of, ends_in_digest
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.artefact.onnx import KEY, METADATA_PROPS
from kedge_runtime.frozen import dataclass
from kedge_runtime.modelfile.archives import FAULTS, opened
from kedge_runtime.modelfile.check.check import check_model
from kedge_runtime.modelfile.encodings import parts
from kedge_runtime.modelfile.network import Network, Operator, Scales, Value, read_network, readable

# Member of a sealed file -> its name in the report.
MEMBERS = {CONTRACT: "contract", GOLDEN: "golden", "kedge/digest": "digest"} | dict.fromkeys(
    LABELS.values(), "labels"
)


def sizes(content: ModelContent, network: Network) -> dict[str, int]:
    """Return the bytes of each part of a file; they add up to its size.

    `graph`: all bytes that belong to no other part. Raises ArtefactError for broken metadata.
    """
    with readable(content):
        file_parts = {"weights": weights(network), **_MEMBER_SIZES[network.format](content.data)}
    return {"graph": len(content.data) - sum(file_parts.values()), **file_parts}


def model_end(model: bytes) -> int:
    """Return where a .tflite model ends and the archive behind it starts."""
    members, _ = _archive(model)
    return min((info.header_offset for info in members), default=len(model))


def _archive(model: bytes) -> tuple[list[zipfile.ZipInfo], bytes]:
    """Return the members and the comment of the archive behind a model; empty without one."""
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
    member_sizes = {}
    for place in parts(model, METADATA_PROPS):
        # Protocol Buffers leave an empty key out.
        at = next(parts(model, KEY, place), slice(0, 0))
        key = model[at].decode(errors="replace") or "(no key)"
        member_sizes[MEMBERS.get(key, key)] = place.stop - place.start
    return member_sizes


_MEMBER_SIZES = {"tflite": _tflite_members, "onnx": _onnx_members}


ALIGNMENT = 64  # bytes: kDefaultTensorAlignment of tensorflow/lite/util.h
MAX_PLANNED = 5000  # activations; the planning time grows with their square


@dataclass(frozen=True)
class Lifetime:
    """An activation's aligned size in bytes, and the first and last operator that need it."""

    size: int
    first: int
    last: int


def arena(network: Network) -> int | None:
    """Return the bytes of the arena, or None where a shape is open or unknown."""
    activations = lifetimes(network)
    if activations is None or len(activations) > MAX_PLANNED:
        return None
    placed: list[tuple[int, Lifetime]] = []
    for lifetime in sorted(activations, key=lambda lifetime: (-lifetime.size, lifetime.first)):
        placed.append((_gap(lifetime, placed), lifetime))
    return max((offset + lifetime.size for offset, lifetime in placed), default=0)


def lifetimes(network: Network) -> list[Lifetime] | None:
    """Return every activation's lifetime, or None where a size is unknown."""
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
    return [Lifetime(_aligned(sizes[place] or 0), *span) for place, span in spans.items()]


def _gap(lifetime: Lifetime, placed: list[tuple[int, Lifetime]]) -> int:
    """Return the offset of the smallest sufficient gap, else the end of the placed activations."""
    taken = sorted(
        (offset, offset + other.size)
        for offset, other in placed
        if other.first <= lifetime.last and lifetime.first <= other.last
    )
    end, best = 0, None
    for start, stop in taken:
        room = start - end
        if room >= lifetime.size and (best is None or room < best[0]):
            best = (room, end)
        end = max(end, stop)
    return end if best is None else best[1]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


Role = Literal["weights", "activations"]
Granularity = Literal["channel", "tensor", "none"]


@dataclass(frozen=True)
class OperatorCount:
    """The number of operators of one kind, version and type of the first output."""

    kind: str
    version: int
    dtype: str
    count: int


@dataclass(frozen=True)
class QuantisationCount:
    """The number of tensors of one role, reader, type and granularity of quantisation.

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
    """A network's operators, quantisation and memory.

    `arena`: peak bytes of the activations, None where the file doesn't state all shapes.
    `weights`: bytes of all constants.
    """

    operators: tuple[OperatorCount, ...]
    quantisation: tuple[QuantisationCount, ...]
    arena: int | None
    weights: int


def summarise(network: Network) -> Summary:
    """Count a network's operators and quantisations, and plan its memory."""
    kinds = Counter(
        (each.kind, each.version, dtype)
        for each, dtype in zip(network.operators, output_types(network), strict=True)
    )
    operators = [OperatorCount(*key, count) for key, count in sorted(kinds.items())]
    operators.sort(key=lambda row: -row.count)
    return Summary(tuple(operators), quantisation(network), arena(network), weights(network))


# ONNX operators whose output type isn't that of their first input.
OTHER_TYPES = {"Shape": "int64", "ArgMax": "int64", "Cast": "", "CastLike": "", "Range": ""}


def output_types(network: Network) -> list[str]:
    """Return the type of each operator's first output; "" where neither file nor inputs tell.

    An ONNX file need not state the types between its operators.
    """
    types = {place: value.dtype for place, value in enumerate(network.values)}
    found = []
    for each in network.operators:
        outputs = [place for place in each.outputs if place >= 0]
        inputs = [types[place] for place in each.inputs if place >= 0]
        inferred = OTHER_TYPES.get(each.kind, next(iter(inputs), ""))
        for place in outputs:
            types[place] = types[place] or inferred
        found.append(types[outputs[0]] if outputs else "")
    return found


def weights(network: Network) -> int:
    """Return the bytes of all constants; data that several tensors share count once."""
    constants = {id(each.data): each.data for each in network.values if each.data is not None}
    return sum(data.nbytes for data in constants.values())


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
    """Return whether a tensor has a scale per channel, one for all, or none."""
    if value.scales is None:
        return "none"
    return "tensor" if value.scales.count == 1 else "channel"


def _tensors(network: Network) -> Iterator[tuple[Role, str, Value]]:
    """Yield the weights with the operator that reads them, then the activations, each once."""
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
    """Return the kind of operator that computes with weights; in ONNX behind DequantizeLinear."""
    if reader.kind == "DequantizeLinear" and reader.outputs[0] in readers:
        return readers[reader.outputs[0]].kind
    return reader.kind


def is_weight(value: Value) -> bool:
    """Return whether a value is a kernel: a constant of more than one dimension."""
    return value.constant and len(value.shape or ()) > 1


INTEGER = frozenset({"int8", "uint8"})


def precision_of(network: Network) -> Precision:
    """Return the precision by the types of the weights and the activations.

    `unknown`: types that no precision of kedge has, or no weights, as in a compiled file.
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
    """Return the precision of integer weights by the activations' types."""
    if not quantised & {*INTEGER, "int16"}:
        return "dynamic"
    if floats:
        return "mixed"
    return "int16x8" if "int16" in quantised else "int8"


@dataclass(frozen=True)
class FileReport:
    """A file's network and summary; `contract`: None without a seal; `sizes`: bytes by part."""

    path: Path
    network: Network
    summary: Summary
    sizes: dict[str, int]
    precision: Precision
    contract: Contract | None


def inspect(path: Path) -> FileReport:
    """Read a file and summarise it.

    Raises ArtefactError when it is no valid model, or was changed after it was sealed.
    """
    content = read_content(path)
    check_model(content)
    network = read_network(content)
    contract = artefact_of(content).contract if ends_in_digest(content.data) else None
    precision = contract.provenance.precision if contract else precision_of(network)
    return FileReport(
        path, network, summarise(network), sizes(content, network), precision, contract
    )
