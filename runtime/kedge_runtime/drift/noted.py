"""What journals note of a shard, measured or recorded: written, and checked when it is read.

A journal is a file like any other. What it says has to fit the shard that it names: every image
once, numbers of the right kind and count, classes that exist.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kedge_runtime.drift import rows
from kedge_runtime.drift.intervals import Numbers
from kedge_runtime.drift.journal import Entry, packed, unpacked
from kedge_runtime.drift.measure import Part
from kedge_runtime.drift.pictures import DIGEST_BYTES, Failure, Pictures, Shard
from kedge_runtime.drift.reference import Recorded
from kedge_runtime.records import decode

Failed = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Measured:
    """A `Part`, its arrays as text; `failed`: the names of images and why."""

    rows: str
    seconds: str
    failed: Failed


@dataclass(frozen=True)
class Recording:
    """A `Recorded`, its arrays as text; `failed`: the names of images and why."""

    names: tuple[str, ...]
    digests: str
    outputs: str
    failed: Failed


def shards_of(pictures: Pictures) -> dict[int, Shard]:
    """Return the shards that are asked for, by their index."""
    return {shard.index: shard for shard in pictures.shards()}


@dataclass(frozen=True)
class Parts:
    """The form of measured shards (journal.Form).

    `labels`: how many classes there are; `alike`: whether both sides' outputs are of one kind, and
    so have a distance.
    """

    shards: dict[int, Shard]
    labels: int
    alike: bool

    def write(self, part: Part) -> Entry:
        """Return a part as plain data."""
        failed = [[failure.image, failure.error] for failure in part.failed]
        return {"rows": packed(part.rows), "seconds": packed(part.seconds), "failed": failed}

    def read(self, index: int, entry: object) -> Part:
        """Return a shard's part. Raises ContractError or ValueError for one that can't be its."""
        noted = decode(Measured, entry, "shard")
        shard = _asked(self.shards, index)
        part = Part(
            unpacked(noted.rows, rows.ROW), unpacked(noted.seconds, float), _failures(noted.failed)
        )
        failed = [shard.start + shard.names.index(failure.image) for failure in part.failed]
        indices = range(shard.start, shard.start + len(shard.names))
        _once([*part.rows["picture"].tolist(), *failed], indices)
        rows.check(part.rows, self.labels, alike=self.alike)
        if len(part.seconds) != len(part.rows) or not _is_time(part.seconds):
            raise ValueError("its times are not those of its images")
        return part


def _is_time(seconds: Numbers) -> bool:
    return bool((np.isfinite(seconds) & (seconds >= 0)).all())


@dataclass(frozen=True)
class Answers:
    """The original's answers to a shard, and the images that couldn't be read."""

    recorded: Recorded
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Answered:
    """The form of recorded shards (journal.Form)."""

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
        """Return a shard's answers. Raises ContractError or ValueError for what can't be its."""
        noted = decode(Recording, entry, "shard")
        failed = _failures(noted.failed)
        shard = _asked(self.shards, index)
        _once([*noted.names, *(failure.image for failure in failed)], shard.names)
        count = len(noted.names)
        digests = unpacked(noted.digests, np.uint8).reshape(count, DIGEST_BYTES)
        outputs = unpacked(noted.outputs, "<f4")
        outputs = outputs.reshape(count, len(outputs) // max(count, 1))
        if bool(outputs.size) != bool(count) or not np.isfinite(outputs).all():
            raise ValueError("its outputs are not those of its images")
        return Answers(Recorded(noted.names, digests, outputs), failed)


def _asked(shards: dict[int, Shard], index: int) -> Shard:
    if index not in shards:
        raise ValueError("a shard that isn't asked for")
    return shards[index]


def _failures(failed: Failed) -> tuple[Failure, ...]:
    return tuple(Failure(*words) for words in failed)


def _once(found: Iterable[object], asked: Iterable[object]) -> None:
    """Raise ValueError unless each that is asked for is there, and there once."""
    if sorted(map(str, found)) != sorted(map(str, asked)):
        raise ValueError("its images are not those of the shard")
