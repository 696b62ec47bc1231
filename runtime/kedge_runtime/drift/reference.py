"""The float original's answers in a file, so that a device compares with it without TensorFlow.

An .npz that numpy.load reads too: `facts` and `names` [n] (JSON in ASCII, as uint8: numpy's texts
are all as long as the longest), `digests` (SHA-256 of each picture, uint8 [n, 32]) and `outputs`
(float32 [n, classes]). Nothing is compressed. The outputs, 4 kB a picture of ImageNet, are read row
by row: the file may be larger than the memory.
"""

import json
import os
import weakref
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import open_plain
from kedge_runtime.artefact.contract import Contract, Geometry, Normalisation, Output, Tensor
from kedge_runtime.drift.journal import DIGEST_BYTES, Failure
from kedge_runtime.errors import ArtefactError, KedgeError, UsageError, reason_of
from kedge_runtime.files import sha256_of, whole_file
from kedge_runtime.modelfile import archives
from kedge_runtime.modelfile.archives import FAULTS, opened
from kedge_runtime.records import decode, encode

SCHEMA = 2
SUFFIX = ".npz"
_SMALL = ("facts", "names", "digests")  # what is read at once, before the outputs
_CHUNK = 1 << 20
# What numpy writes before an array is padded to a multiple of 64 bytes; ours take two at most.
_HEADER_BYTES = 1 << 10


@dataclass(frozen=True)
class ReferenceFacts:
    """What the answers are of: a reference of another model, or fed otherwise, is refused.

    `weights_digest` is empty where another artefact answered, fed as its own contract says.
    `work`: what recorded it, so that a second run need not do it again. `failed`: the pictures
    that couldn't be read.
    """

    source: str
    weights_digest: str
    geometry: Geometry
    normalisation: Normalisation
    output: Output
    work: str = ""
    failed: tuple[Failure, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def of(cls, contract: Contract) -> "ReferenceFacts":
        """Return what a contract says of the original that its artefact was made from."""
        return cls(
            contract.provenance.source,
            contract.provenance.weights_digest,
            contract.input.geometry,
            contract.input.normalisation,
            # The original gives real numbers, and no temperature was fitted to it.
            replace(contract.output, tensor=Tensor(), temperature=1.0),
        )


class Reference:
    """An open reference: its facts, and the rows of its pictures by name."""

    def __init__(self, path: Path) -> None:
        """Check the archive and read all but the outputs.

        Raises UsageError for a file that is missing, ArtefactError for one that is no reference.
        """
        self.path = path
        try:
            # Once: what is checked here is what is read later, whatever gets the name meanwhile.
            self._file = open_plain(path)
            weakref.finalize(self, self._file.close)
            with opened(self._file) as archive:
                members = _members(archive, path)
                self.facts = _facts(members["facts"], path)
                self.names = _names(members["names"])
                self.digests: NDArray[np.uint8] = members["digests"]
                self._at, shape = _outputs(archive, self._file, path)
        except OSError as error:
            raise UsageError(f"--against: {path}: {reason_of(error)}") from None
        except (*FAULTS, KeyError) as error:
            raise _damaged(path, error) from None
        self.classes = shape[1]
        self._rows = {name: i for i, name in enumerate(self.names)}
        self._failed = {failure.image for failure in self.facts.failed}
        self._check_counts(shape[0])

    def _check_counts(self, rows: int) -> None:
        """Raise ArtefactError unless each row has a name of its own, a digest and numbers."""
        if not len(self.names) == len(self._rows) == rows or not self.classes:
            raise _damaged(self.path, f"{len(self._rows)} names for {rows} rows")
        dtype, shape = self.digests.dtype, self.digests.shape
        if dtype != np.uint8 or shape != (rows, DIGEST_BYTES):
            raise _damaged(self.path, f"its digests are {dtype} {shape}")

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the file."""
        self._file.seek(0)
        return f"sha256:{sha256_of(self._file)}"

    def is_failed(self, name: str) -> bool:
        """Whether the picture couldn't be read when the reference was recorded."""
        return name in self._failed

    def outputs(self, name: str, digest: NDArray[np.uint8]) -> Floats:
        """Return the original's numbers for a picture, float32 [classes].

        Raises UsageError for a picture that it doesn't know, or knows with another content;
        ArtefactError for numbers that aren't there or aren't finite.
        """
        row = self._rows.get(name)
        if row is None or not np.array_equal(self.digests[row], digest):
            wrong = "isn't in it" if row is None else "had another content"
            raise UsageError(
                f"{self.path}: is a reference of other pictures: {name} {wrong} when it was "
                "recorded; record one of this folder with --against MODEL --record FILE"
            )
        size = 4 * self.classes
        content = os.pread(self._file.fileno(), size, self._at + row * size)
        if len(content) != size or not np.isfinite(numbers := np.frombuffer(content, "<f4")).all():
            raise _damaged(self.path, f"no numbers for {name}")
        return numbers

    def check(self, contract: Contract, artefact: Path) -> None:
        """Raise UsageError unless it is of the model that `artefact` was made from, fed alike.

        The answers of another artefact need to be of the same kind and number only.
        """
        if not self.facts.weights_digest:
            self._check_answers(contract, artefact)
            return
        wanted = ReferenceFacts.of(contract)
        for name in ("weights_digest", "geometry", "normalisation", "output"):
            found, stated = getattr(self.facts, name), getattr(wanted, name)
            if found != stated:
                raise UsageError(
                    f"{self.path}: is no reference of {artefact}: its {name} is {found}, the "
                    f"artefact's original has {stated}; record one with --against MODEL --record"
                )

    def _check_answers(self, contract: Contract, artefact: Path) -> None:
        ours, other = contract.output, self.facts.output
        found = (self.classes - other.label_offset, other.multi_label, other.thresholds)
        stated = (len(contract.labels), ours.multi_label, ours.thresholds)
        if found != stated:
            raise UsageError(
                f"{self.path}: its answers are not those of {artefact}: classes, several labels, "
                f"thresholds are {found}, the artefact's {stated}"
            )


def _members(archive: zipfile.ZipFile, path: Path) -> archives.Arrays:
    members = [archive.getinfo(f"{name}.npy") for name in (*_SMALL, "outputs")]
    # So that it never unpacks to more than the file's own size, however many pictures there are.
    if any(info.compress_type for info in members):
        raise _damaged(path, "it is compressed")
    contents = {info.filename: archive.read(info) for info in members[:-1]}
    return {name.removesuffix(".npy"): archives.read_array(npy) for name, npy in contents.items()}


def _json(array: NDArray[Any]) -> Any:
    if array.dtype != np.uint8:
        raise ValueError("it is of another version of kedge")
    return json.loads(array.tobytes())


def _as_json(value: Any) -> NDArray[np.uint8]:
    # In ASCII, where a name of any bytes is a text, too: Python's escapes for them are escaped.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return np.frombuffer(text.encode(), np.uint8)


def _names(array: NDArray[Any]) -> list[str]:
    names = _json(array)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are no list of texts")
    return names


def _facts(array: NDArray[Any], path: Path) -> ReferenceFacts:
    try:
        data = _json(array)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError("it is of another version of kedge")
        return decode(ReferenceFacts, data, "facts")
    except (ValueError, KedgeError) as error:
        raise _damaged(path, error) from None


def _outputs(archive: zipfile.ZipFile, file: IO[bytes], path: Path) -> tuple[int, tuple[int, ...]]:
    """Return where in the file the numbers begin, and their shape."""
    info = archive.getinfo("outputs.npy")
    with archive.open(info) as member:
        header = archives.read_header(member.read(_HEADER_BYTES))
        # To the end, whose CRC zipfile compares: a damaged reference is found before it is used.
        member.seek(0)
        while member.read(_CHUNK):
            pass
    right = header.dtype == np.dtype("<f4") and len(header.shape) == 2
    if not right or header.offset + header.size != info.file_size:
        raise _damaged(path, f"its outputs are {header.dtype} {header.shape}")
    # A zip's local header: 30 bytes, of which the last four are the lengths of name and extra.
    file.seek(info.header_offset + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return info.header_offset + 30 + name + extra + header.offset, header.shape


def _damaged(path: Path, reason: object) -> ArtefactError:
    return ArtefactError(
        f"{path}: no reference that `kedge drift --record` wrote ({reason}); record it again"
    )


@dataclass(frozen=True)
class Recorded:
    """The original's answers for some pictures, in their order.

    `digests`: uint8 [n, 32]; `outputs`: float32 [n, classes].
    """

    names: Sequence[str]
    digests: NDArray[np.uint8]
    outputs: Floats


def write_reference(
    path: Path, facts: ReferenceFacts, parts: Callable[[], Iterable[Recorded]]
) -> None:
    """Write what `parts()` yields, one in memory at a time; it is called twice.

    Raises UsageError when the disk or the folder refuses it, or when there is no picture in them.
    """
    known = [(part.names, part.digests, part.outputs.shape[1]) for part in parts()]
    names = [name for some, _, _ in known for name in some]
    if not names:
        raise UsageError("none of the pictures can be read: there is nothing to compare")
    if len({classes for _, _, classes in known}) > 1:
        raise UsageError(
            f"{path}: its journal has answers of another number of classes; remove "
            f"{path.name}.journal and run it again"
        )
    arrays = {
        "facts": _as_json(encode(facts)),
        "names": _as_json(names),
        "digests": np.concatenate([digests for _, digests, _ in known]),
    }
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with _member(archive, name) as member:
                np.lib.format.write_array(member, array, version=(1, 0))
        with _member(archive, "outputs") as member:
            _write_outputs(member, len(names), parts())


def _write_outputs(member: IO[bytes], count: int, parts: Iterable[Recorded]) -> None:
    for i, part in enumerate(parts):
        rows = np.ascontiguousarray(part.outputs, "<f4")
        if not i:
            shape = (count, rows.shape[1])
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
        member.write(rows.tobytes())


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # A fixed date: the same answers, the same bytes.
    return archive.open(
        zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True
    )
