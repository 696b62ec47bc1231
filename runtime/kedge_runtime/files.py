"""Files that appear whole or not at all."""

import os
from pathlib import Path

from kedge_runtime.errors import UsageError


def check_place(option: str, path: Path, suffix: str) -> None:
    """Raise UsageError for a file that can't be written, before hours are spent on it."""
    if path.suffix.lower() != suffix:
        raise UsageError(f"{option}: got {path}, its name must end in {suffix}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option}: {path}: can't be written there; choose another place")


def write_whole(path: Path, content: bytes) -> None:
    """Write beside `path`, sync, rename: what had the name stays until the new file is whole.

    Raises UsageError when the folder or the disk refuses it.
    """
    temporary = path.with_name(f".kedge-{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: can't be written ({reason}); choose another place") from None
    finally:
        if temporary.exists():
            temporary.unlink()
