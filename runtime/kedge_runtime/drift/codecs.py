"""Turn the results of a shard into an entry of a journal, and check an entry that is read."""

from collections.abc import Iterable

import numpy as np

from kedge_runtime.arrays import Doubles
from kedge_runtime.drift import measure
from kedge_runtime.drift.journal import (
    DIGEST_BYTES,
    Entry,
    Failure,
    ImageFolder,
    Shard,
    packed,
    unpacked,
)
from kedge_runtime.drift.measure import Part
from kedge_runtime.drift.reference import Recorded
from kedge_runtime.frozen import dataclass
from kedge_runtime.records import decode

Failed = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PartEntry:
    """Hold a `Part` as plain data; `failed`: names of images and errors."""

    rows: str
    seconds: str
    failed: Failed


@dataclass(frozen=True)
class AnswersEntry:
    """Hold `Answers` as plain data; `failed`: names of images and errors."""

    names: tuple[str, ...]
    digests: str
    outputs: str
    failed: Failed


def shards_of(images: ImageFolder) -> dict[int, Shard]:
    """Return the folder's shards by their index."""
    return {shard.index: shard for shard in images.shards()}


@dataclass(frozen=True)
class PartCodec:
    """Turn measured shards into plain data and back (journal.ShardCodec).

    `labels`: the number of classes; `alike`: whether both sides have outputs of one kind, and so a
    distance.
    """

    shards: dict[int, Shard]
    labels: int
    alike: bool

    def write(self, part: Part) -> Entry:
        """Return a part as plain data."""
        failed = [[failure.image, failure.error] for failure in part.failed]
        return {"rows": packed(part.rows), "seconds": packed(part.seconds), "failed": failed}

    def read(self, index: int, entry: object) -> Part:
        """Return a shard's part. Raises ContractError or ValueError for data of another shard."""
        fields = decode(PartEntry, entry, "shard")
        shard = _shard(self.shards, index)
        part = Part(
            unpacked(fields.rows, measure.ROW),
            unpacked(fields.seconds, float),
            _failures(fields.failed),
        )
        failed = [shard.start + shard.names.index(failure.image) for failure in part.failed]
        indices = range(shard.start, shard.start + len(shard.names))
        _check_complete([*part.rows["image"].tolist(), *failed], indices)
        measure.check(part.rows, self.labels, alike=self.alike)
        if len(part.seconds) != len(part.rows) or not _is_time(part.seconds):
            raise ValueError("its times don't match its images")
        return part


def _is_time(seconds: Doubles) -> bool:
    return bool((np.isfinite(seconds) & (seconds >= 0)).all())


@dataclass(frozen=True)
class Answers:
    """Hold the reference's answers to a shard, and the unreadable images."""

    recorded: Recorded
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class AnswersCodec:
    """Turn recorded shards into plain data and back (journal.ShardCodec)."""

    shards: dict[int, Shard]

    def write(self, answers: Answers) -> Entry:
        """Return answers as plain data."""
        recorded = answers.recorded
        return {
            "names": list(recorded.names),
            "digests": packed(recorded.digests),
            "outputs": packed(recorded.outputs),
            "failed": [[failure.image, failure.error] for failure in answers.failed],
        }

    def read(self, index: int, entry: object) -> Answers:
        """Return a shard's answers. Raises ContractError or ValueError for another's data."""
        fields = decode(AnswersEntry, entry, "shard")
        failed = _failures(fields.failed)
        shard = _shard(self.shards, index)
        _check_complete([*fields.names, *(failure.image for failure in failed)], shard.names)
        count = len(fields.names)
        digests = unpacked(fields.digests, np.uint8).reshape(count, DIGEST_BYTES)
        outputs = unpacked(fields.outputs, "<f4")
        outputs = outputs.reshape(count, len(outputs) // max(count, 1))
        if bool(outputs.size) != bool(count) or not np.isfinite(outputs).all():
            raise ValueError("its outputs don't match its images")
        return Answers(Recorded(fields.names, digests, outputs), failed)


def _shard(shards: dict[int, Shard], index: int) -> Shard:
    if index not in shards:
        raise ValueError("the folder has no such shard")
    return shards[index]


def _failures(failed: Failed) -> tuple[Failure, ...]:
    return tuple(Failure(*words) for words in failed)


def _check_complete(found: Iterable[object], expected: Iterable[object]) -> None:
    """Raise ValueError unless every expected image is there once."""
    if sorted(map(str, found)) != sorted(map(str, expected)):
        raise ValueError("its images are not those of the shard")
