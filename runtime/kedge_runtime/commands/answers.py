"""Answers as a person reads them, in 80 columns, and as plain data for JSON."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kedge_runtime.output import page
from kedge_runtime.printable import printable
from kedge_runtime.results import Prediction, Result, disagree

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
