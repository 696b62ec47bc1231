"""Find the images of a folder, and render images where the user has none."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from kedge_runtime.arrays import Pixels
from kedge_runtime.errors import UsageError, counted, reason_of
from kedge_runtime.image.decode import SUFFIXES
from kedge_runtime.image.opencv import cv2

# Images that kedge does not read. Other files, such as texts, are not reported.
OTHERS = frozenset(
    {".arw", ".avif", ".cr2", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".tif"}
    | {".tiff"}
)


def files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder at any depth, in no fixed order; links to folders are followed.

    A folder with several names comes once, by its real one if that lies below `folder`. Raises
    UsageError for a folder that can't be read.
    """
    seen, waiting = set[tuple[int, int]](), [folder]
    while waiting:
        for parent, below, names in os.walk(waiting.pop(0), onerror=_refuse):
            status = Path(parent).stat()
            if (status.st_dev, status.st_ino) in seen:
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            below.sort()
            waiting += filter(Path.is_symlink, (Path(parent, name) for name in below))
            yield from (Path(parent, name) for name in names)


def _refuse(error: OSError) -> None:
    reason = reason_of(error)
    raise UsageError(f"{error.filename}: {reason}; make it readable, or move it away") from None


def _with_suffix(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    for path in files(folder):
        # On other file systems macOS keeps metadata of x.jpg as `._x.jpg`.
        if path.suffix.lower() in suffixes and not path.name.startswith("._"):
            yield path


def other_files(folder: Path) -> list[Path]:
    """Return the images in formats that `find_images` skips, sorted; convert them to use them."""
    return sorted(_with_suffix(folder, OTHERS))


def by_suffix(paths: Iterable[Path]) -> str:
    """Return e.g. `.HEIC 12, .gif 1`."""
    suffixes = Counter(path.suffix for path in paths)
    return ", ".join(f"{suffix} {count}" for suffix, count in sorted(suffixes.items()))


def unread_files(folder: Path) -> str:
    """Return e.g. `12 files of other kinds left out (.HEIC 12)` for `other_files`, "" for none."""
    others = other_files(folder)
    if not others:
        return ""
    kind = "another kind" if len(others) == 1 else "other kinds"
    return f"{counted(len(others), 'file')} of {kind} left out ({by_suffix(others)})"


def find_images(folder: Path, option: str = "") -> list[Path]:
    """Return the images of a folder at any depth, sorted; links to folders are followed.

    `option`: the command line's option with the folder, for messages. Raises UsageError when it is
    no folder, holds no image, or can't be read.
    """
    where = f"{option}: {folder}" if option else str(folder)
    try:
        exists = folder.is_dir()
    except OSError as error:
        raise UsageError(f"{where}: {reason_of(error)}") from None
    if not exists:
        raise UsageError(f"{where}: no such folder; give a folder of images")
    images = sorted(_with_suffix(folder, SUFFIXES))
    if not images:
        others = f"; {skipped}" if (skipped := unread_files(folder)) else ""
        raise UsageError(f"{where}: no images in it ({', '.join(sorted(SUFFIXES))}){others}")
    return images


COUNT = 24
# The sides of an image as multiples of the network's: wide, tall, square.
ASPECTS = ((1.3, 1.9), (1.8, 1.25), (1.5, 1.5))
SHAPES = 5


def render_images(height: int, width: int, count: int = COUNT, seed: int = 0) -> list[Pixels]:
    """Render `count` images, RGB uint8 [h, w, 3], each larger than `height` x `width` pixels.

    The same seed gives the same images.
    """
    random = np.random.default_rng(seed)
    sides = (ASPECTS[i % len(ASPECTS)] for i in range(count))
    return [_image(random, round(height * tall), round(width * wide)) for tall, wide in sides]


def _image(random: "np.random.Generator", height: int, width: int) -> Pixels:
    # Four corners' colours, blended: the channels differ, so that swapped ones are noticed.
    corners = random.integers(0, 256, (2, 2, 3)).astype(np.float32)
    canvas = np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR))
    image = np.ascontiguousarray(canvas.clip(0, 255).astype(np.uint8))
    for _ in range(SHAPES):
        _shape(random, image)
    return image


def _shape(random: "np.random.Generator", image: Pixels) -> None:
    height, width = image.shape[:2]
    colour = tuple(map(int, random.integers(0, 256, 3)))
    centre = (int(random.integers(width)), int(random.integers(height)))
    radius = max(1, int(min(height, width) * random.uniform(0.05, 0.35)))
    if random.random() < 0.5:
        cv2.circle(image, centre, radius, colour, -1)
    else:
        corner = (centre[0] + radius, centre[1] + max(1, radius // 2))
        cv2.rectangle(image, centre, corner, colour, -1)
