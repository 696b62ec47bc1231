"""Write files completely or not at all, and remove temporary files of killed processes.

Their names hold the process and the host, so that the next run recognises them.
"""

import contextlib
import errno
import io
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from functools import cache
from pathlib import Path
from typing import BinaryIO

from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.sha256 import sha256

# The age, in seconds, of leftovers from other machines, containers and boots, whose processes can't
# be looked up. No conversion takes so long.
OLD = 2 * 24 * 3600.0
_NAME = r"(?s)\.?kedge-(\d{1,10})-([0-9a-f]{8})-[0-9a-z_]{8}(-.*)?"


@cache
def host() -> str:
    """Return eight hexadecimal digits for the machine, its boot and its process id namespace."""
    facts = [os.uname().nodename]
    with suppress(OSError):  # neither exists on macOS
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return sha256("\n".join(facts).encode()).hexdigest()[:8]


def prefix() -> str:
    """Return the prefix of this process's temporary names."""
    return f"kedge-{os.getpid()}-{host()}-"


def is_ours(name: str) -> bool:
    """Return whether a name is one of kedge's temporary names."""
    return re.fullmatch(_NAME, name) is not None


def hidden(path: Path) -> Path:
    """Return a random hidden name beside `path`, with its suffix."""
    return path.with_name(f".{prefix()}{os.urandom(4).hex()}-{path.name}")


def sweep(folder: Path) -> None:
    """Remove the leftovers of this user's dead processes from a folder.

    An unreadable folder is left as it is.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = re.fullmatch(_NAME, entry.name)
            if match and _is_left(entry, int(match[1]), match[2]):
                _remove(entry)


@cache
def sweep_once(folder: Path) -> None:
    """Call `sweep` once per folder in this process."""
    sweep(folder)


def _is_left(entry: os.DirEntry[str], process: int, machine: str) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # another process removed it
        return False
    if status.st_uid != os.geteuid():
        return False
    if machine == host():
        return not _lives(process)
    return time.time() - status.st_mtime > OLD


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's process
        pass
    return True


def _remove(entry: os.DirEntry[str]) -> None:
    import shutil  # few processes find any

    with suppress(FileNotFoundError):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            Path(entry.path).unlink()


# A full disk, quota or process limit.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Always a new file: never one, or a link, that another user planted under its name.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


_CHUNK = 1 << 20


def sha256_of(file: BinaryIO | io.RawIOBase) -> str:
    """Return the SHA-256 of the rest of an open file, 64 hex digits. Raises OSError."""
    import hashlib  # few calls hash a file by parts

    hasher = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        hasher.update(chunk)
    return hasher.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits. Raises OSError."""
    with path.open("rb") as file:
        return sha256_of(file)


class Access(Enum):
    """What other users may do with a folder, the strictest first."""

    NONE = 0
    READ = 1
    WRITE = 2
    OWN = 3  # it is not this user's, or no folder


def others_access(folder: Path) -> Access:
    """Return what other users may do with a folder; a link is judged as no folder.

    One rule for notes and caches: they are believed only where no other user can write. Raises
    OSError.
    """
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return Access.OWN
    if status.st_mode & 0o022:
        return Access.WRITE
    return Access.READ if status.st_mode & 0o077 else Access.NONE


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False for an unreadable one, which fails when opened."""
    try:
        return path.is_dir()
    except OSError:
        return False


# Enough for a table of a million images. A device such as /dev/zero never ends.
MAX_TEXT = 64 << 20


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file of at most MAX_TEXT bytes, without a byte order mark.

    Raises OSError, UnicodeDecodeError.
    """
    try:
        file = path.open("rb")
    except ValueError:  # half a character or a NUL, which JSON allows
        raise OSError(errno.EINVAL, "invalid file name", repr(str(path))) from None
    with file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise OSError(errno.EFBIG, f"has more than {MAX_TEXT >> 20} MiB", str(path))
    # -sig: Windows editors put a mark before the first word.
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def check_place(option: str, path: Path, suffix: str) -> None:
    """Raise UsageError for a file that can't be written, before hours of work."""
    if path.suffix.lower() != suffix:
        raise UsageError(f"{option}: got {path}, its name must end in {suffix}")
    if is_folder(path) or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option}: {path}: can't be written there; choose another place")


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a hidden name beside `path` with the same suffix; the file is removed unless renamed.

    Leftovers of killed processes beside it are removed first.
    """
    sweep_once(path.parent.absolute())
    temporary = hidden(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file to write, and sync it after the block; an existing file is removed.

    Raises OSError.
    """
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, _NEW, 0o666), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def temporary_folder(place: Path | None = None) -> Iterator[Path]:
    """Yield a new folder in `place`, by default the one for temporary files, and remove it after.

    Leftovers of killed processes in `place` are removed first. Raises UsageError when there is no
    room for it, or for files that the block writes.
    """
    from tempfile import TemporaryDirectory

    try:
        root = place or Path(_default())
        sweep_once(root.absolute())
        folder = TemporaryDirectory(prefix=prefix(), dir=root, ignore_cleanup_errors=True)
    except OSError as error:
        raise no_room(place, unwritable(error)) from None
    with folder as name, room(place):
        yield Path(name)


@contextlib.contextmanager
def room(place: Path | None = None) -> Iterator[None]:
    """Run a block that writes temporary files. Raises UsageError where there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise no_room(place, unwritable(error)) from None


def no_room(place: Path | None, reason: str) -> UsageError:
    """Return the error for temporary files without room."""
    remedy = "make room there" if place else "set TMPDIR to one with room"
    return UsageError(f"temporary folder {place or users_folder()}: {reason}; {remedy}")


def users_folder() -> Path:
    """Return the folder for temporary files that the user chose, not a worker's subfolder."""
    try:
        folder = Path(_default())
    except OSError:  # none of those that Python tries can be written
        return Path(os.environ.get("TMPDIR", "/tmp"))
    return folder.parent if is_ours(folder.name) else folder


def _default() -> str:
    """Return Python's folder for temporary files. Raises OSError where none can be written."""
    import tempfile  # classifying an image needs none

    return tempfile.gettempdir()


def unwritable(error: OSError) -> str:
    """Return the reason why a file or folder can't be written, for a message."""
    return f"can't be written ({reason_of(error)})"


def publish(temporary: Path, final: Path) -> None:
    """Rename a synced file, replacing an existing one, and sync the folder. Raises OSError."""
    temporary.replace(final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside `path` to write; sync and rename it after the block.

    An existing file stays until the new one is complete. Raises UsageError when the folder or the
    disk refuses it.
    """
    try:
        with staged(path) as temporary:
            with synced(temporary) as file:
                yield file
            publish(temporary, path)
    except OSError as error:
        raise UsageError(f"{path}: {unwritable(error)}; choose another place") from None


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file completely or not at all. Raises UsageError as `whole_file` does."""
    with whole_file(path) as file:
        file.writelines(parts)
