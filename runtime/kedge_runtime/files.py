"""Write files whole or not at all, and remove what a killed process left behind.

Temporary files carry the name of their process and host, so that the next run can tell them.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from kedge_runtime.errors import UsageError, reason_of

# A process of another machine, container or boot can't be looked up: only the age tells.
OLD = 2 * 24 * 3600.0  # seconds; no conversion takes so long
_NAME = re.compile(r"\.?kedge-(\d{1,10})-([0-9a-f]{8})-[0-9a-z_]{8}(-.*)?", re.DOTALL)


@cache
def host() -> str:
    """Return eight hexadecimal digits for the machine, its boot and its space of process ids."""
    facts = [os.uname().nodename]
    with suppress(OSError):  # neither exists on macOS
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def prefix() -> str:
    """Return what the temporary names of this process begin with."""
    return f"kedge-{os.getpid()}-{host()}-"


def is_ours(name: str) -> bool:
    """Whether a file or folder has a temporary name of kedge."""
    return _NAME.fullmatch(name) is not None


def hidden(path: Path) -> Path:
    """Return a hidden name beside `path`, with its suffix, that nobody can foretell."""
    return path.with_name(f".{prefix()}{os.urandom(4).hex()}-{path.name}")


def sweep(folder: Path) -> None:
    """Remove what dead processes of this user left in a folder.

    A folder that can't be read keeps what is in it.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found and _is_left(entry, int(found[1]), found[2]):
                _remove(entry)


@cache
def sweep_once(folder: Path) -> None:
    """Do the same, once in the life of this process."""
    sweep(folder)


def _is_left(entry: os.DirEntry[str], process: int, machine: str) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # another process sweeps, too
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
    with suppress(FileNotFoundError):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            Path(entry.path).unlink()


# A disk, a quota or a limit of the process that leaves no room.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A new file, and never one that somebody planted under its name or a link from there.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
    try:
        file = path.open("rb")
    except ValueError:  # half a character or a NUL in it, which a JSON text can state
        raise OSError(errno.EINVAL, "invalid file name", repr(str(path))) from None
    with file:
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
    """Yield a hidden name beside `path` with the same suffix; it is removed unless renamed.

    What killed processes left beside it is removed first.
    """
    sweep_once(path.parent.absolute())
    temporary = hidden(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file to write, and sync it after the block; what had the name is removed.

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

    What killed processes left in `place` is removed first. Raises UsageError when there is no
    room, also for what the block writes.
    """
    try:
        root = place or Path(tempfile.gettempdir())
        sweep_once(root.absolute())
        made = tempfile.TemporaryDirectory(prefix=prefix(), dir=root, ignore_cleanup_errors=True)
    except OSError as error:
        raise no_room(place, unwritable(error)) from None
    with made as name, room(place):
        yield Path(name)


@contextlib.contextmanager
def room(place: Path | None = None) -> Iterator[None]:
    """Run a block that writes temporary files. Raises UsageError where they find no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise no_room(place, unwritable(error)) from None


def no_room(place: Path | None, reason: str) -> UsageError:
    """Return what to tell where temporary files find no room."""
    remedy = "make room there" if place else "set TMPDIR to one with room"
    return UsageError(f"temporary folder {place or users_folder()}: {reason}; {remedy}")


def users_folder() -> Path:
    """Return the folder for temporary files that the user can choose: not a worker's within."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError:  # none of those that Python tries can be written
        return Path(os.environ.get("TMPDIR", "/tmp"))
    return folder.parent if is_ours(folder.name) else folder


def unwritable(error: OSError) -> str:
    """Return why a file or folder can't be written, in the words of every such message."""
    return f"can't be written ({reason_of(error)})"


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
        raise UsageError(f"{path}: {unwritable(error)}; choose another place") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all. Raises UsageError as `whole_file` does."""
    with whole_file(path) as file:
        file.write(content)
