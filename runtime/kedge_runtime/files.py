"""Files that appear whole or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kedge_runtime.errors import UsageError, reason_of


def is_folder(path: Path) -> bool:
    """Whether it is a folder. What can't be looked at is none: who opens it will tell why."""
    try:
        return path.is_dir()
    except OSError:
        return False


# A table of a million images; a device such as /dev/zero never ends.
MAX_TEXT = 64 << 20


def read_text(path: Path) -> str:
    """Return a text file of at most MAX_TEXT bytes of UTF-8, a byte order mark left out.

    Raises OSError, UnicodeDecodeError.
    """
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise OSError(errno.EFBIG, f"has more than {MAX_TEXT >> 20} MiB", str(path))
    # -sig: Windows editors put a mark before the first word.
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def check_place(option: str, path: Path, suffix: str) -> None:
    """Raise UsageError for a file that can't be written, before hours are spent on it."""
    if path.suffix.lower() != suffix:
        raise UsageError(f"{option}: got {path}, its name must end in {suffix}")
    if is_folder(path) or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option}: {path}: can't be written there; choose another place")


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a hidden name beside `path` with the same suffix; it is removed unless renamed."""
    temporary = path.with_name(f".kedge-{os.getpid()}-{path.name}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file to write, and sync it after the block. Raises OSError."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def publish(temporary: Path, final: Path) -> None:
    """Rename a synced file, replacing what had the name, and sync the folder. Raises OSError."""
    temporary.replace(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside `path` to write; sync and rename it after the block.

    What had the name stays until the new file is whole. Raises UsageError when the folder or the
    disk refuses it.
    """
    try:
        with staged(path) as temporary:
            with synced(temporary) as file:
                yield file
            publish(temporary, path)
    except OSError as error:
        reason = reason_of(error)
        raise UsageError(f"{path}: can't be written ({reason}); choose another place") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all. Raises UsageError as `whole_file` does."""
    with whole_file(path) as file:
        file.write(content)
