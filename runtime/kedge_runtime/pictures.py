"""The pictures of a folder."""

from pathlib import Path

from kedge_runtime.errors import UsageError
from kedge_runtime.image import SUFFIXES


def find(folder: Path) -> list[Path]:
    """Return a folder's pictures at any depth, sorted. Raises UsageError when there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"{folder}: no pictures in it ({', '.join(sorted(SUFFIXES))})")
    return found
