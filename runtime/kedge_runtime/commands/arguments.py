"""Split a command line into artefacts and images, and count the images that fail."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from kedge_runtime.artefact.containers import FORMATS
from kedge_runtime.errors import ImageError, UsageError, counted
from kedge_runtime.files import is_folder
from kedge_runtime.image.folder import find_images
from kedge_runtime.output import say

STDIN = "-"


def split(
    arguments: Iterable[str], *, streaming: bool = False, optional: bool = False, zips: bool = False
) -> tuple[list[Path], Iterator[Path]]:
    """Return the artefacts (.tflite, .onnx) and the images, in their order.

    Patterns are expanded, folders are searched, and `-` reads names from stdin, one per line.
    `streaming`: refuse images; `optional`: allow no images; `zips`: count a zip as a model. Raises
    UsageError for a missing artefact, for missing images, and for images beside a stream.
    """
    paths = list(chain.from_iterable(map(_expand, arguments)))
    suffixes = {*FORMATS, "zip"} if zips else {*FORMATS}
    artefacts = [path for path in paths if path.suffix.lower().lstrip(".") in suffixes]
    images = [path for path in paths if path not in artefacts]
    if not artefacts:
        allowed = ", ".join("." + name for name in FORMATS)
        raise UsageError(
            f"no artefact given, such files end in {allowed}; got {paths[0]} "
            "(`kedge convert` makes them)"
        )
    if images and streaming:
        raise UsageError(f"{images[0]}: images or a stream, one at a time")
    if not (images or streaming or optional):
        raise UsageError(
            "no images given: name files, folders, 'patterns/*.jpg', or - for names on stdin"
        )
    return artefacts, chain.from_iterable([_images(path) for path in images])


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if not glob.has_magic(argument) or path.exists():
        return [path]
    # Path.glob takes no absolute patterns.
    matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
    if not matches:
        raise UsageError(f"{argument}: no file matches")
    return [Path(name) for name in matches]


def _images(path: Path) -> Iterable[Path]:
    if str(path) == STDIN:
        # Bytes, as names need not be text; lists from Windows end their lines in \r\n.
        lines = (line.rstrip(b"\r\n") for line in (sys.stdin.buffer if sys.stdin else ()))
        return (Path(os.fsdecode(line)) for line in lines if line.strip())
    return find_images(path) if is_folder(path) else [path]


@dataclass
class Batch:
    """Counts images, and records those that can't be read."""

    count: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def skipping(self, image: Path) -> Iterator[None]:
        """Count an image; where it can't be read, report that and leave the block."""
        self.count += 1
        try:
            yield
        except ImageError as error:
            self.failed.append({"image": str(image), "error": str(error)})
            say(error)

    def close(self) -> int:
        """Report the number of failures on stderr; return the exit code.

        Raises UsageError when there was no image.
        """
        if not self.count:
            raise UsageError("no images: stdin has no names")
        if not self.failed:
            return 0
        say(f"{counted(self.count, 'image')}, {len(self.failed)} failed")
        return 2
