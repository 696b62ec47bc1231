"""Check the files of a folder: unreadable and blank images, copies and near copies, the number."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_convert.calibration.finding import CalibrationFinding, named
from kedge_convert.images import ALIKE, MINIMUM, Look, Tick, is_blank, look
from kedge_runtime.errors import ImageError, counted
from kedge_runtime.files import sha256_of_file
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.folder import by_suffix

ROWS = 1024  # thumbnails that are compared with all others at once: 8 MB for each 1000 images
# More near copies than this make the validation easier than the field.
MOST_NEAR_COPIES = 0.05


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder by their fault.

    `looks`: of the usable ones. `same_bytes`: copies of a file; `same_pixels`: other files with
    the pixels of another image. The first of equal images, in the order of paths, is usable.
    """

    looks: Mapping[Path, Look]
    unreadable: tuple[Path, ...]
    blank: tuple[Path, ...]
    same_bytes: tuple[Path, ...]
    same_pixels: tuple[Path, ...]

    @property
    def total(self) -> int:
        """The number of images in the folder."""
        faulty = (self.unreadable, self.blank, self.same_bytes, self.same_pixels)
        return len(self.looks) + sum(map(len, faulty))


def read(paths: Sequence[Path], tick: Tick = lambda: None) -> FolderImages:
    """Read every image once."""
    looks: dict[Path, Look] = {}
    faults: dict[str, list[Path]] = defaultdict(list)
    seen = set[Hashable]()
    for path in paths:
        fault, found = _fault(path, seen)
        if found is None:
            faults[fault].append(path)
        else:
            looks[path] = found
        tick()
    names = ("unreadable", "blank", "same_bytes", "same_pixels")
    return FolderImages(looks, *(tuple(faults[name]) for name in names))


def _fault(path: Path, seen: set[Hashable]) -> tuple[str, Look | None]:
    """Return the field of FolderImages and None, or the look of a usable image."""
    try:
        pixels = read_image(path)
    except ImageError:
        return "unreadable", None
    if (content := sha256_of_file(path)) in seen:
        return "same_bytes", None
    seen.add(content)
    if is_blank(pixels):
        return "blank", None
    found = look(pixels)
    if found.digest in seen:
        return "same_pixels", None
    seen.add(found.digest)
    return "", found


def near_copies(looks: Mapping[Path, Look]) -> tuple[Path, ...]:
    """Return the images that are nearly copies of an earlier one: scaled, or saved again."""
    paths = list(looks)
    thumbnails = (
        np.stack([each.thumbnail for each in looks.values()]) if looks else np.empty((0, 1))
    )
    found = []
    for start in range(0, len(paths), ROWS):
        alike = thumbnails[start : start + ROWS] @ thumbnails.T > ALIKE
        found += [start + i for i, row in enumerate(alike) if row[: start + i].any()]
    return tuple(paths[i] for i in found)


def findings(images: FolderImages, wanted: int) -> Iterator[CalibrationFinding]:
    """Yield what is to be said of the files; `wanted`: the calibration images of a conversion."""
    yield _unreadable(images)
    yield _skipped("images of one colour", images.blank)
    yield _skipped("copies of a file", images.same_bytes)
    yield _skipped("files with equal pixels", images.same_pixels)
    yield _near(images)
    yield _number(images, wanted)


def _unreadable(images: FolderImages) -> CalibrationFinding:
    name, paths = "unreadable images", images.unreadable
    if not paths:
        return CalibrationFinding(name, "ok", "none")
    return CalibrationFinding(
        name,
        "problem",
        f"{len(paths)}: {named(paths)}",
        "copy them again, or remove them: a folder with damaged files may lack others, too",
        paths,
    )


def other_kinds(paths: tuple[Path, ...]) -> CalibrationFinding:
    """Return what is to be said of images in formats that kedge does not read."""
    name = "files of other kinds"
    if not paths:
        return CalibrationFinding(name, "ok", "none")
    result = f"{len(paths)} left out ({by_suffix(paths)}): {named(paths)}"
    remedy = "`kedge convert` leaves them out; save them as JPEG or PNG to use them"
    return CalibrationFinding(name, "note", result, remedy, paths)


def _skipped(name: str, paths: tuple[Path, ...]) -> CalibrationFinding:
    if not paths:
        return CalibrationFinding(name, "ok", "none")
    result = f"{len(paths)}: {named(paths)}"
    return CalibrationFinding(name, "note", result, "`kedge convert` skips them", paths)


def _near(images: FolderImages) -> CalibrationFinding:
    paths = near_copies(images.looks)
    if not paths:
        return CalibrationFinding("near copies", "ok", "none")
    share = len(paths) / len(images.looks)
    result = f"{len(paths)} of {counted(len(images.looks), 'image')}: {named(paths)}"
    many = share > MOST_NEAR_COPIES
    return CalibrationFinding(
        "near copies",
        "problem" if many else "note",
        result,
        "remove them: frames of one scene count as one image, and calibration and validation "
        "images that resemble each other make the check too favourable",
        paths,
    )


def _number(images: FolderImages, wanted: int) -> CalibrationFinding:
    usable = len(images.looks)
    result = f"{counted(usable, 'usable image')} of {images.total}"
    if usable < MINIMUM:
        remedy = f"add images: `kedge convert` takes no fewer than {MINIMUM}"
        return CalibrationFinding("number", "problem", result, remedy)
    if usable < wanted:
        remedy = f"`kedge convert` calibrates with {wanted} where there are as many; add images"
        return CalibrationFinding("number", "note", result, remedy)
    return CalibrationFinding("number", "ok", result)
