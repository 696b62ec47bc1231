"""The pictures of a folder."""

from pathlib import Path

from kedge_runtime.errors import UsageError
from kedge_runtime.image import SUFFIXES


def find(folder: Path, option: str = "") -> list[Path]:
    """Return a folder's pictures at any depth, sorted; `option` is what gave the folder.

    Raises UsageError when it is no folder or holds none.
    """
    where = f"{option}: {folder}" if option else str(folder)
    if not folder.is_dir():
        raise UsageError(f"{where}: no such folder; give a folder of pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"{where}: no pictures in it ({', '.join(sorted(SUFFIXES))})")
    return found
