"""Find the images of a folder, and draw images where none are given."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Pixels
from kedge_runtime.errors import UsageError, counted, reason_of
from kedge_runtime.image.decode import SUFFIXES

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


COUNT = 24
# The sides of an image as multiples of the network's: wide, tall, square.
ASPECTS = ((1.3, 1.9), (1.8, 1.25), (1.5, 1.5))
SHAPES = 5


def rendered(height: int, width: int, count: int = COUNT, seed: int = 0) -> list[Pixels]:
    """Return `count` images, RGB uint8, each larger than `height` x `width`; by the seed alone."""
    random = np.random.default_rng(seed)
    sides = (ASPECTS[i % len(ASPECTS)] for i in range(count))
    return [_image(random, round(height * tall), round(width * wide)) for tall, wide in sides]


def _image(random: np.random.Generator, height: int, width: int) -> Pixels:
    # Four corners' colours, blended: every channel takes values of its own.
    corners = random.integers(0, 256, (2, 2, 3)).astype(np.float32)
    canvas = np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR))
    image = np.ascontiguousarray(canvas.clip(0, 255).astype(np.uint8))
    for _ in range(SHAPES):
        _shape(random, image)
    return image


def _shape(random: np.random.Generator, image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    colour = tuple(map(int, random.integers(0, 256, 3)))
    centre = (int(random.integers(width)), int(random.integers(height)))
    radius = max(1, int(min(height, width) * random.uniform(0.05, 0.35)))
    if random.random() < 0.5:
        cv2.circle(image, centre, radius, colour, -1)
    else:
        corner = (centre[0] + radius, centre[1] + max(1, radius // 2))
        cv2.rectangle(image, centre, corner, colour, -1)
