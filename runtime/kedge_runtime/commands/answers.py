"""Split a command line into artefacts and images, and print their answers."""

import glob
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from kedge_runtime.artefact.containers import FORMATS
from kedge_runtime.classify.results import Prediction, Result, disagree
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.files import is_folder
from kedge_runtime.image.folder import find_images
from kedge_runtime.output import page, quiet, say
from kedge_runtime.printable import printable

NAME_COLUMNS = 30
LONGEST = 200  # characters of a name where a line holds little else
# The mark of a row, and the gap between columns of the comparison.
MARK, GAP = "! ", "  "


def words(path: str | Path, result: Result, top: int) -> str:
    """Return one line per picture for `top` 1, else the picture and a line per class."""
    picture = printable(path)
    named = [_class(prediction) for prediction in result.predictions]
    if top == 1 and len(named) == 1:
        said = short(_said(result), NAME_COLUMNS)
        return f"{_percent(result.best)}  {said:{NAME_COLUMNS}}  {picture}"
    rows = [f"  {line}" for line in named] or [f"  none is likely; most: {_class(result.best)}"]
    heading = f"{picture}: unknown" if result.unknown else picture
    return page([heading, *rows])


def comparison_head(titles: Sequence[str]) -> str:
    """Return the numbered models and the head of the table below them."""
    numbers = [str(i) for i in range(1, len(titles) + 1)]
    legend = [f"{number:>2}  {title}" for number, title in zip(numbers, titles, strict=True)]
    return page([*legend, "", _row("  ", "picture", [f"{n:>4}" for n in numbers])])


def comparison_row(path: Path, results: Sequence[Result]) -> str:
    """Return a picture and each model's best answer; `!` marks those that disagree."""
    cells = [f"{result.best.probability:4.0%} {_said(result)}" for result in results]
    return _row(MARK if disagree(results) else "  ", str(path), cells)


def plain(path: Path, artefact: str, result: Result) -> dict[str, Any]:
    """Return the documented object (docs/json.md)."""
    return {"image": str(path), "artefact": artefact, **facts(result)}


def facts(result: Result) -> dict[str, Any]:
    """Return what the documented objects say of an answer."""
    return {
        "label": result.label,
        "unknown": result.unknown,
        "margin": result.margin,
        "entropy": result.entropy,
        "best": asdict(result.best),
        "predictions": [asdict(prediction) for prediction in result.predictions],
    }


def _row(mark: str, picture: str, cells: Sequence[str]) -> str:
    room = shutil.get_terminal_size().columns - len(mark)
    # Many models in a narrow terminal leave no room at all.
    first = max(room // (len(cells) + 1), 1)
    other = max((room - first) // len(cells) - len(GAP), 1)
    name = f"{short(picture, first, keep_end=True):{first}}"
    return (mark + name + "".join(f"{GAP}{short(c, other):{other}}" for c in cells)).rstrip()


def _class(prediction: Prediction) -> str:
    key = "" if prediction.id == prediction.name else f" ({printable(prediction.id, LONGEST)})"
    return f"{_percent(prediction)}  {printable(prediction.name, LONGEST)}{key}"


def _said(result: Result) -> str:
    return f"unknown ({result.best.name}?)" if result.unknown else result.best.name


def _percent(prediction: Prediction) -> str:
    return f"{prediction.probability:6.1%}"


def short(text: str, columns: int, *, keep_end: bool = False) -> str:
    """Return a name in at most so many columns; `…` stands for what was cut off."""
    text = printable(text)
    if len(text) <= columns:
        return text
    if columns < 2:
        return text[: max(columns, 0)]
    return "…" + text[1 - columns :] if keep_end else text[: columns - 1] + "…"


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
    return find_images(path) if is_folder(path) else [path]


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
