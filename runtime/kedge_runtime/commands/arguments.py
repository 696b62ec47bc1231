"""Read a command line's values: artefacts and images, shares, drops in accuracy, and lists.

A batch counts the images that fail.
"""

import glob
import io
import os
import re
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge_runtime.artefact.containers import FORMATS
from kedge_runtime.errors import ImageError, UsageError, counted
from kedge_runtime.files import is_folder
from kedge_runtime.image.folder import find_images, unread_files
from kedge_runtime.output import say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

STDIN = "-"
_CHUNK = 1 << 16
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})


def split(
    arguments: Iterable[str], *, streaming: bool = False, optional: bool = False, zips: bool = False
) -> "tuple[list[Path], NamedImages]":
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
    if video := next((path for path in images if path.suffix.lower() in VIDEOS), None):
        watched = f"kedge watch {shlex.quote(str(artefacts[0]))} --video {shlex.quote(str(video))}"
        raise UsageError(f"{video}: a video, not an image; run", run=watched)
    if not (images or streaming or optional):
        raise UsageError(
            "no images given: name files, folders, 'patterns/*.jpg', or - for names on stdin"
        )
    return artefacts, NamedImages(chain.from_iterable([_images(path) for path in images]))


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if not glob.has_magic(argument) or path.exists():
        return [path]
    # Path.glob takes no absolute patterns.
    matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
    if not matches:
        raise UsageError(f"{argument}: no file matches")
    return [Path(name) for name in matches]


def _images(path: Path) -> "Iterable[Path | StdinNames]":
    if str(path) == STDIN:
        return [StdinNames(sys.stdin.buffer if sys.stdin else io.BytesIO())]
    if not is_folder(path):
        return [path]
    images = find_images(path)
    say_unread(path)
    return images


def say_unread(folder: Path) -> None:
    """Say which images of a folder are left out as kedge does not read their format."""
    if others := unread_files(folder):
        say(f"{folder}: {others}")


class StdinNames(Iterator[Path]):
    """Names from stdin, one a line, as they arrive."""

    def __init__(self, stream: Any) -> None:
        """Take a binary stream with `read1`."""
        self._stream, self._names, self._rest = stream, deque[Path](), b""

    def ready(self) -> bool:
        """Whether the next name has arrived."""
        return bool(self._names)

    def __next__(self) -> Path:
        """Wait for the next name. Raises StopIteration at the end of the stream."""
        while not self._names:
            self._receive()
        return self._names.popleft()

    def _receive(self) -> None:
        content = self._stream.read1(_CHUNK)
        if not content and not self._rest:
            raise StopIteration
        # Bytes, as names need not be text; lists from Windows end their lines in \r\n.
        *lines, self._rest = (self._rest + (content or b"\n")).split(b"\n")
        lines = [line.rstrip(b"\r") for line in lines]
        self._names.extend(Path(os.fsdecode(line)) for line in lines if line.strip())


class NamedImages(Iterator[Path]):
    """The images of a command line, in their order."""

    def __init__(self, images: Iterable[Path | StdinNames]) -> None:
        """Take paths, and what stands for the names on stdin."""
        self._images = deque(images)

    def __len__(self) -> int:
        """Return how many are known; the names on stdin count as one."""
        return len(self._images)

    def ready(self) -> bool:
        """Whether the next image is known; else the next one waits for stdin."""
        first = self._images[0] if self._images else None
        return first.ready() if isinstance(first, StdinNames) else True

    def __next__(self) -> Path:
        """Return the next image."""
        while self._images:
            first = self._images[0]
            if not isinstance(first, StdinNames):
                self._images.popleft()
                return first
            if (name := next(first, None)) is not None:
                return name
            self._images.popleft()
        raise StopIteration


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


class Share(click.FloatRange):
    """A number in 0..1, or a percentage, as `kedge.toml` has it: `.95` or `95%`."""

    name = "share"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the share. Fails for a text that is no number, or one outside 0..1."""
        match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
        try:
            return super().convert(float(match[1]) / 100 if match else value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message.rstrip('.')}: give a share, as .99", param, ctx)


SHARE = Share(0, 1)

_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
_DROP = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e-?[0-9]+)?)\s*(pp|%)?")


def read_drop(value: str | float) -> float:
    """Return a drop in accuracy, a share of the images, 0..1.

    `0.5pp` (percentage points), `0.5%` or `.005`. Raises ValueError for anything else. A bare 1 is
    refused too: it is meant as a point, and as a share no artefact would fail it.
    """
    match = _DROP.fullmatch(str(value).strip())
    number, unit = (float(match[1]), match[2]) if match else (-1.0, None)
    if not 0 <= number <= 100:
        raise ValueError(f"{value!r} is no drop: allowed are 0pp to 100pp, as 0.5pp or .005")
    if unit is None and number >= 1:
        share = f"{number / 100:g}".removeprefix("0")
        raise ValueError(f"{value} would be {100 * number:g} points: give {number:g}pp or {share}")
    return number / 100 if unit else number


# click's types became generic in 8.3; kedge runs on older ones.
class Drop(click.ParamType):  # type: ignore[type-arg]
    """A drop in accuracy, as `read_drop` reads it."""

    name = "drop"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the share. Fails with what is allowed."""
        try:
            return read_drop(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DROP = Drop()


class Several(click.ParamType):  # type: ignore[type-arg]
    """Values separated by commas, each checked by another type."""

    def __init__(self, kind: Any) -> None:
        """Take the type of one value."""
        self.kind = kind
        self.name = kind.name

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        """Return the values. Fails for an empty one and for what `kind` refuses."""
        if isinstance(value, tuple):
            return value
        return tuple(self.kind.convert(part.strip(), param, ctx) for part in value.split(","))

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> "list[CompletionItem]":
        """Return the completions of the last value."""
        last = incomplete.rpartition(",")[2]
        return in_list(incomplete, [i.value for i in self.kind.shell_complete(ctx, param, last)])


def in_list(incomplete: str, names: Iterable[str]) -> "list[CompletionItem]":
    """Return completions of the last of several names, separated by commas."""
    from click.shell_completion import CompletionItem  # few calls complete

    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{before}{comma}{name}") for name in names if name.startswith(last)]


Names = Callable[[], Iterable[str]]
Completion = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def completing(names: Names, *, files: bool = False) -> Completion:
    """Return the `shell_complete` of an option that takes one of `names`, or also a file."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem  # few calls complete

        items = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
        # First, as bash forgets what came before it; it lists files where no name fits.
        return [CompletionItem(incomplete, type="file"), *items] if files else items

    return complete


def completing_list(names: Names) -> Completion:
    """Return the `shell_complete` of an option that takes several of `names`."""
    return lambda _, __, incomplete: in_list(incomplete, names())
