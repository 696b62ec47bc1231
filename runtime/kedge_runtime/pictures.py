"""The pictures of a folder."""

from collections import Counter
from pathlib import Path

from kedge_runtime.errors import UsageError
from kedge_runtime.image import SUFFIXES

# Pictures of other kinds, which kedge doesn't read; a text file beside pictures is no loss.
OTHERS = frozenset(
    {".arw", ".avif", ".cr2", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".tif"}
    | {".tiff"}
)


def left_out(folder: Path) -> str:
    """Return e.g. `12 files of other kinds left out (.HEIC 12)` for a folder, "" for none.

    They are the pictures that `find` passes over; convert them to use them.
    """
    kinds = Counter(path.suffix for path in folder.rglob("*") if path.suffix.lower() in OTHERS)
    if not kinds:
        return ""
    files = "1 file" if kinds.total() == 1 else f"{kinds.total()} files"
    named = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    kind = "another kind" if kinds.total() == 1 else "other kinds"
    return f"{files} of {kind} left out ({named})"


def find(folder: Path, option: str = "") -> list[Path]:
    """Return a folder's pictures at any depth, sorted; `option` is what gave the folder.

    Raises UsageError when it is no folder or holds none.
    """
    where = f"{option}: {folder}" if option else str(folder)
    if not folder.is_dir():
        raise UsageError(f"{where}: no such folder; give a folder of pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        others = f"; {said}" if (said := left_out(folder)) else ""
        raise UsageError(f"{where}: no pictures in it ({', '.join(sorted(SUFFIXES))}){others}")
    return found
