"""Names of temporary files and folders, and the removal of those that a killed process left.

`.kedge-PID-HOST-RANDOM-NAME` for a file beside its final name, `kedge-PID-HOST-RANDOM` for a
folder: HOST stands for the machine and its boot, where PID means a process.
"""

import hashlib
import os
import re
import shutil
import stat
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

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
