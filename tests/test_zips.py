"""Archives that cost more than they are, and files that are none."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.foreign import read_model
from kedge_runtime.drift.reference import Reference
from kedge_runtime.errors import ArtefactError, ImageError, UsageError
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.modelfile.archives import MAX_DIRECTORY

# APPNOTE.TXT: a member in the list (4.3.12), and the list's end (4.3.16).
_MEMBER = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 4, 0, 33, 0, 0, 0, 1, *[0] * 6) + b"a"


def _end(count: int, size: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, size, 0, 0)


def long_list(path: Path) -> None:
    """Write a list of members that lies in the file."""
    count = MAX_DIRECTORY // len(_MEMBER) + 1
    path.write_bytes(_MEMBER * count + _end(count, count * len(_MEMBER)))


def sparse_list(path: Path) -> None:
    """Write a list of 3 GB that takes no place on the disk."""
    with path.open("wb") as file:
        file.seek(3_000_000_000)
        file.write(_end(1, 3_000_000_000))


@pytest.mark.parametrize("write", [long_list, sparse_list])
def test_a_list_of_members_is_bounded(write: Callable[[Path], None], tmp_path: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {"m.zip": read_model, "r.npz": Reference}
    for name, read in readers.items():
        write(tmp_path / name)
        with pytest.raises(ArtefactError, match="a list of members of more than 1048576 bytes"):
            read(tmp_path / name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("read", [read_model, Reference])
def test_a_pipe_is_not_waited_for(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    os.mkfifo(path)
    with pytest.raises((ArtefactError, UsageError), match="a pipe, a socket or a device"):
        read(path)


@pytest.mark.timeout(60)
def test_a_file_that_became_a_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a file's kind and its opening anybody may exchange it."""
    path, plain = tmp_path / "m.tflite", tmp_path / "plain"
    os.mkfifo(path)
    plain.write_bytes(b"content")
    status = plain.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with pytest.raises(ArtefactError, match="a pipe, a socket or a device"):
        read_content(path)
    with pytest.raises(ImageError, match="a pipe, a socket or a device"):
        read_bytes(path)
