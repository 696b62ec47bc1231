"""Which of the words on the command line are artefacts and which are pictures, and the loop over
pictures that a bad one can't end.
"""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar

from kedge_runtime.containers import FORMATS
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.files import is_folder
from kedge_runtime.output import say
from kedge_runtime.pictures import find
from kedge_runtime.quiet import quiet

STDIN = "-"

Answer = TypeVar("Answer")


def split(
    words: Iterable[str], *, streaming: bool = False, optional: bool = False, zips: bool = False
) -> tuple[list[Path], Iterator[Path]]:
    """Return artefacts (they end in .tflite or .onnx) and pictures, in the order given.

    A pattern that the shell left alone is expanded, a folder is searched, `-` reads names from
    stdin, one a line, as they come. `zips`: whether a zip is a model. Raises
    UsageError when there is no artefact, or no picture though they aren't `optional`, or when there
    is one beside a stream.
    """
    paths = list(chain.from_iterable(map(_expanded, words)))
    kinds = {*FORMATS, "zip"} if zips else {*FORMATS}
    artefacts = [path for path in paths if path.suffix.lower().lstrip(".") in kinds]
    pictures = [path for path in paths if path not in artefacts]
    if not artefacts:
        allowed = ", ".join("." + name for name in FORMATS)
        raise UsageError(
            f"no artefact given, such files end in {allowed}; got {paths[0]} "
            "(`kedge convert` makes them)"
        )
    if pictures and streaming:
        raise UsageError(f"{pictures[0]}: pictures or a stream, one at a time")
    if not (pictures or streaming or optional):
        raise UsageError(
            "no pictures given: name files, folders, 'patterns/*.jpg', or - for names on stdin"
        )
    return artefacts, chain.from_iterable([_found(path) for path in pictures])


def _expanded(word: str) -> list[Path]:
    path = Path(word)
    if not glob.has_magic(word) or path.exists():
        return [path]
    # Path.glob takes no absolute patterns.
    found = sorted(glob.glob(word, recursive=True))  # noqa: PTH207
    if not found:
        raise UsageError(f"{word}: matches nothing")
    return [Path(name) for name in found]


def _found(path: Path) -> Iterable[Path]:
    if str(path) == STDIN:
        # Bytes, as names need not be text; lists from Windows end their lines in \r\n.
        lines = (line.rstrip(b"\r\n") for line in (sys.stdin.buffer if sys.stdin else ()))
        return (Path(os.fsdecode(line)) for line in lines if line.strip())
    return find(path) if is_folder(path) else [path]


@dataclass
class Batch:
    """Pictures one after the other; one that can't be read is told and passed over."""

    count: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def run(
        self, pictures: Iterable[Path], ask: Callable[[Path], Answer]
    ) -> Iterator[tuple[Path, Answer]]:
        """Yield each readable picture with its answer."""
        for path in pictures:
            self.count += 1
            try:
                # OpenCV has its own words about a damaged picture; one line is enough.
                with quiet():
                    answer = ask(path)
            except ImageError as error:
                self.failed.append({"image": str(path), "error": str(error)})
                say(error)
            else:
                yield path, answer

    def close(self) -> int:
        """Sum up on stderr when some failed; return the exit code. Raises UsageError for none."""
        if not self.count:
            raise UsageError("no pictures came: stdin holds no names")
        if not self.failed:
            return 0
        say(f"{self.count} pictures, {len(self.failed)} failed")
        return 2
