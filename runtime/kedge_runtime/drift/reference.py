"""Write and read the reference's answers: a device compares with them without TensorFlow.

An .npz that numpy.load reads too: `facts` and `names` [n] (JSON in ASCII, as uint8: numpy's texts
are all as long as the longest), `digests` (SHA-256 of each image, uint8 [n, 32]) and `outputs`
(float32 [n, classes]). Nothing is compressed. The outputs, 4 kB an image of ImageNet, are read row
by row: the file may be larger than the memory.
"""

import json
import os
import weakref
import zipfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import open_plain
from kedge_runtime.artefact.contract import Contract, Geometry, Normalisation, Output, Tensor
from kedge_runtime.artefact.provenance import calibration_mark
from kedge_runtime.drift.journal import DIGEST_BYTES, Failure
from kedge_runtime.errors import ArtefactError, KedgeError, UsageError, reason_of
from kedge_runtime.files import sha256_of, whole_file
from kedge_runtime.frozen import dataclass
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
    """Describe the model of the answers and its preprocessing; they must match the artefact's.

    `weights_digest`: empty where another artefact answered, with its own preprocessing. `work`: a
    digest of the recording, so that a second run can skip it. `failed`: the unreadable images.
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
        """Return what a contract records of the float model of its artefact."""
        return cls(
            contract.provenance.source,
            contract.provenance.weights_digest,
            contract.input.geometry,
            contract.input.normalisation,
            _raw(contract.output),
        )


def _raw(output: Output) -> Output:
    """Return what an output says of its numbers, without what was fitted to read them."""
    return replace(output, tensor=Tensor(), temperature=1.0, thresholds=())


class Reference:
    """Hold an open reference: its facts, and the rows of its images by name."""

    def __init__(self, path: Path) -> None:
        """Check the archive and read all but the outputs.

        Raises UsageError for a missing file, ArtefactError for one that is no reference.
        """
        self.path = path
        try:
            # Opened once: the file that is checked here is the file that is read later.
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
        """Raise ArtefactError unless each row has its own name, a digest and outputs."""
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

    def output(self, artefact: Output) -> Output:
        """Return how its answers are read: as the artefact's, with that temperature and thresholds.

        So a figure of a drift is what the numbers lost, and not what a calibration changed.
        """
        return replace(
            self.facts.output, temperature=artefact.temperature, thresholds=artefact.thresholds
        )

    def is_failed(self, name: str) -> bool:
        """Whether the image was unreadable when the reference was recorded."""
        return name in self._failed

    def count_marked(self, names: Iterable[str], marks: Collection[str]) -> int:
        """Count the images whose content has one of `marks` (Provenance.calibration_images)."""
        known = frozenset(marks)
        digests = (self.digests[self._rows[name]] for name in names)
        return sum(calibration_mark(digest.tobytes()) in known for digest in digests)

    def outputs(self, name: str, digest: NDArray[np.uint8]) -> Floats:
        """Return the reference's outputs for an image, float32 [classes].

        Raises UsageError for an image that it lacks, or has with another content; ArtefactError for
        outputs that are missing or not finite.
        """
        row = self._rows.get(name)
        if row is None or not np.array_equal(self.digests[row], digest):
            reason = "is not in it" if row is None else "has changed since"
            raise UsageError(
                f"{self.path}: recorded from other images: {name} {reason}; record this folder "
                "with --against MODEL --record FILE"
            )
        size = 4 * self.classes
        content = os.pread(self._file.fileno(), size, self._at + row * size)
        if len(content) != size or not np.isfinite(numbers := np.frombuffer(content, "<f4")).all():
            raise _damaged(self.path, f"no outputs for {name}")
        return numbers

    def check(self, contract: Contract, artefact: Path) -> None:
        """Raise UsageError unless it has the float model and the preprocessing of `artefact`.

        The answers of another artefact need only the same kind and number of classes.
        """
        if not self.facts.weights_digest:
            self._check_answers(contract, artefact)
            return
        expected = ReferenceFacts.of(contract)
        for name in ("weights_digest", "geometry", "normalisation", "output"):
            ours, theirs = getattr(self.facts, name), getattr(expected, name)
            if name == "output":
                ours = _raw(ours)  # earlier kedges recorded thresholds
            if ours != theirs:
                raise UsageError(
                    f"{self.path}: is no reference of {artefact}: its {name} is {ours}, the "
                    f"artefact's is {theirs}; record one with --against MODEL --record FILE"
                )

    def _check_answers(self, contract: Contract, artefact: Path) -> None:
        ours, theirs = self.facts.output, contract.output
        has = (self.classes - ours.label_offset, ours.multi_label)
        expected = (len(contract.labels), theirs.multi_label)
        if has != expected:
            raise UsageError(
                f"{self.path}: its answers don't compare with those of {artefact}: classes and "
                f"multi-label are {has}, the artefact's {expected}"
            )


def _members(archive: zipfile.ZipFile, path: Path) -> archives.Arrays:
    members = [archive.getinfo(f"{name}.npy") for name in (*_SMALL, "outputs")]
    # Uncompressed, so that it never unpacks to more than the file's own size.
    if any(info.compress_type for info in members):
        raise _damaged(path, "it is compressed")
    contents = {info.filename: archive.read(info) for info in members[:-1]}
    return {name.removesuffix(".npy"): archives.read_array(npy) for name, npy in contents.items()}


def _json(array: NDArray[Any]) -> Any:
    if array.dtype != np.uint8:
        raise ValueError("it is of another version of kedge")
    return json.loads(array.tobytes())


def _as_json(value: Any) -> NDArray[np.uint8]:
    # ASCII also holds names that are not UTF-8: Python's escapes for their bytes are escaped.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return np.frombuffer(text.encode(), np.uint8)


def _names(array: NDArray[Any]) -> list[str]:
    names = _json(array)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its names are no list of strings")
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
    """Return the offset of the outputs in the file, and their shape."""
    info = archive.getinfo("outputs.npy")
    with archive.open(info) as member:
        header = archives.read_header(member.read(_HEADER_BYTES))
        # zipfile compares the CRC at the end: a damaged reference is found before it is used.
        member.seek(0)
        while member.read(_CHUNK):
            pass
    is_table = header.dtype == np.dtype("<f4") and len(header.shape) == 2
    if not is_table or header.offset + header.size != info.file_size:
        raise _damaged(path, f"its outputs are {header.dtype} {header.shape}")
    # A zip's local header: 30 bytes, of which the last four are the lengths of name and extra.
    file.seek(info.header_offset + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return info.header_offset + 30 + name + extra + header.offset, header.shape


def _damaged(path: Path, reason: object) -> ArtefactError:
    return ArtefactError(
        f"{path}: no reference of `kedge drift --record` ({reason}); record it again"
    )


@dataclass(frozen=True)
class Recorded:
    """Hold the reference's answers to some images, in their order.

    `digests`: uint8 [n, 32]; `outputs`: float32 [n, classes].
    """

    names: Sequence[str]
    digests: NDArray[np.uint8]
    outputs: Floats


def write_reference(
    path: Path, facts: ReferenceFacts, parts: Callable[[], Iterable[Recorded]]
) -> None:
    """Write the parts that `parts()` yields, one in memory at a time; it is called twice.

    Raises UsageError when the file can't be written, or when no part has an image.
    """
    heads = [(part.names, part.digests, part.outputs.shape[1]) for part in parts()]
    names = [name for some, _, _ in heads for name in some]
    if not names:
        raise UsageError("--images: no readable image to compare on; give a folder with some")
    if len({classes for _, _, classes in heads}) > 1:
        raise UsageError(
            f"{path}: its journal has answers with other numbers of classes; remove "
            f"{path.name}.journal and run again"
        )
    arrays = {
        "facts": _as_json(encode(facts)),
        "names": _as_json(names),
        "digests": np.concatenate([digests for _, digests, _ in heads]),
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
    # A fixed date, so that the same answers make the same bytes.
    return archive.open(
        zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True
    )
