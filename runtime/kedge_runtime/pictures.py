"""The pictures of a folder."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kedge_runtime.errors import UsageError, counted, reason_of
from kedge_runtime.image import SUFFIXES

# Pictures of other kinds, which kedge doesn't read; a text file beside pictures is no loss.
OTHERS = frozenset(
    {".arw", ".avif", ".cr2", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".tif"}
    | {".tiff"}
)


def files(folder: Path) -> Iterator[Path]:
    """Yield what is no folder at any depth, behind links to folders too, in no fixed order.

    A folder with several names comes once, by its real one if that lies below `folder`. Raises
    UsageError for a folder that can't be read.
    """
    seen, waiting = set[tuple[int, int]](), [folder]
    while waiting:
        for place, below, names in os.walk(waiting.pop(0), onerror=_refuse):
            status = Path(place).stat()
            if (status.st_dev, status.st_ino) in seen:
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            below.sort()
            waiting += filter(Path.is_symlink, (Path(place, name) for name in below))
            yield from (Path(place, name) for name in names)


def _refuse(error: OSError) -> None:
    reason = reason_of(error)
    raise UsageError(f"{error.filename}: {reason}; make it readable, or move it away") from None


def _of_kind(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    for path in files(folder):
        # macOS keeps `._x.jpg`, which is no picture, beside x.jpg on other file systems.
        if path.suffix.lower() in suffixes and not path.name.startswith("._"):
            yield path


def left_out(folder: Path) -> str:
    """Return e.g. `12 files of other kinds left out (.HEIC 12)` for a folder, "" for none.

    They are the pictures that `find` passes over; convert them to use them.
    """
    kinds = Counter(path.suffix for path in _of_kind(folder, OTHERS))
    if not kinds:
        return ""
    named = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    kind = "another kind" if kinds.total() == 1 else "other kinds"
    return f"{counted(kinds.total(), 'file')} of {kind} left out ({named})"


def find(folder: Path, option: str = "") -> list[Path]:
    """Return a folder's pictures at any depth, sorted; `option` is what gave the folder.

    Links to folders are followed. Raises UsageError when it is no folder or holds none, and for a
    folder in it that can't be read.
    """
    where = f"{option}: {folder}" if option else str(folder)
    try:
        there = folder.is_dir()
    except OSError as error:
        raise UsageError(f"{where}: {reason_of(error)}") from None
    if not there:
        raise UsageError(f"{where}: no such folder; give a folder of pictures")
    found = sorted(_of_kind(folder, SUFFIXES))
    if not found:
        others = f"; {said}" if (said := left_out(folder)) else ""
        raise UsageError(f"{where}: no pictures in it ({', '.join(sorted(SUFFIXES))}){others}")
    return found
