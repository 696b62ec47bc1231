"""Show the results of images: as text, as a table that compares models, or as JSON."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from kedge_runtime.classify.results import Prediction, Result, disagree
from kedge_runtime.output import echo, echo_json, page
from kedge_runtime.printable import printable

ENSEMBLE = "ensemble"  # the title of an ensemble
NAME_COLUMNS = 30
LONGEST = 200  # characters of a name that has a line for itself
# Marks a row in which models disagree; separates the columns of the comparison.
MARK, GAP = "! ", "  "


Failures = list[dict[str, str]]


def text(path: str | Path, result: Result, top: int) -> str:
    """Return one line per image for `top` 1, else the image and a line per class."""
    image = printable(path)
    classes = [_class(prediction) for prediction in result.predictions]
    if top == 1 and len(classes) == 1:
        label = short(_label(result), NAME_COLUMNS)
        return f"{_percent(result.best)}  {label:{NAME_COLUMNS}}  {image}"
    rows = [f"  {line}" for line in classes] or [
        f"  no class reaches its threshold; best: {_class(result.best)}"
    ]
    heading = f"{image}: unknown" if result.unknown else image
    return page([heading, *rows])


def comparison_head(titles: Sequence[str]) -> str:
    """Return the numbered models and the head of the table."""
    numbers = [str(i) for i in range(1, len(titles) + 1)]
    legend = [f"{number:>2}  {title}" for number, title in zip(numbers, titles, strict=True)]
    return page([*legend, "", _row("  ", "image", [f"{n:>4}" for n in numbers])])


def comparison_row(path: Path, results: Sequence[Result]) -> str:
    """Return the row of an image: each model's best class, and `!` where they disagree."""
    cells = [f"{result.best.probability:4.0%} {_label(result)}" for result in results]
    return _row(MARK if disagree(results) else "  ", str(path), cells)


def payload(result: Result) -> dict[str, Any]:
    """Return the JSON keys of a result (docs/json.md)."""
    return {
        "label": result.label,
        "unknown": result.unknown,
        "margin": result.margin,
        "entropy": result.entropy,
        "best": asdict(result.best),
        "predictions": [asdict(prediction) for prediction in result.predictions],
    }


def _row(mark: str, image: str, cells: Sequence[str]) -> str:
    room = shutil.get_terminal_size().columns - len(mark)
    # Many models in a narrow terminal may leave no room.
    first = max(room // (len(cells) + 1), 1)
    other = max((room - first) // len(cells) - len(GAP), 1)
    name = f"{short(image, first, keep_end=True):{first}}"
    return (mark + name + "".join(f"{GAP}{short(c, other):{other}}" for c in cells)).rstrip()


def _class(prediction: Prediction) -> str:
    key = "" if prediction.id == prediction.name else f" ({printable(prediction.id, LONGEST)})"
    return f"{_percent(prediction)}  {printable(prediction.name, LONGEST)}{key}"


def _label(result: Result) -> str:
    return f"unknown ({result.best.name}?)" if result.unknown else result.best.name


def _percent(prediction: Prediction) -> str:
    return f"{prediction.probability:6.1%}"


def short(text: str, columns: int, *, keep_end: bool = False) -> str:
    """Shorten a name to at most `columns`; `…` replaces the rest."""
    text = printable(text)
    if len(text) <= columns:
        return text
    if columns < 2:
        return text[: max(columns, 0)]
    return "…" + text[1 - columns :] if keep_end else text[: columns - 1] + "…"


class TextPrinter:
    """Prints the results of one predictor."""

    def __init__(self, top: int) -> None:
        """Take the number of classes."""
        self._top = top

    def add(self, image: Path, results: Sequence[Result]) -> None:
        """Print the results of an image."""
        click.echo(text(image, results[0], self._top))

    def close(self, failed: Failures) -> None:
        """Print nothing more."""


class ComparisonPrinter:
    """Prints a table that compares several predictors."""

    def __init__(self, titles: Sequence[str]) -> None:
        """Print the head of the table."""
        self._images = self._disagreements = 0
        click.echo(comparison_head(titles))

    def add(self, image: Path, results: Sequence[Result]) -> None:
        """Print the row of an image."""
        self._images += 1
        self._disagreements += disagree(results)
        echo(comparison_row(image, results))

    def close(self, failed: Failures) -> None:
        """Print the number of disagreements."""
        echo("", f"! the models disagree on {self._disagreements} of {self._images} images")


class JsonPrinter:
    """Collects the results, and prints the documented object (docs/json.md)."""

    def __init__(self, titles: Sequence[str], artefacts: Sequence[str]) -> None:
        """Take the names of the predictors and of the artefacts; an ensemble is one of several."""
        self._titles, self._rows = titles, list[dict[str, Any]]()
        self._head = {
            "schema": 1,
            "command": "classify",
            "artefacts": list(artefacts),
            "ensemble": list(titles) == [ENSEMBLE],
        }

    def add(self, image: Path, results: Sequence[Result]) -> None:
        """Add the results of an image."""
        for title, result in zip(self._titles, results, strict=True):
            self.add_row(image, title, payload(result))

    def add_row(self, image: Path, artefact: str, row: dict[str, Any]) -> None:
        """Add one object of the list `results`."""
        self._rows.append({"image": str(image), "artefact": artefact, **row})

    def close(self, failed: Failures) -> None:
        """Print the object."""
        echo_json({**self._head, "results": self._rows, "failed": failed})


Printer = TextPrinter | ComparisonPrinter | JsonPrinter


def printer_for(
    titles: Sequence[str], artefacts: Sequence[str], top: int, *, as_json: bool
) -> Printer:
    """Return the printer of the results of predictors."""
    if as_json:
        return JsonPrinter(titles, artefacts)
    return TextPrinter(top) if len(titles) == 1 else ComparisonPrinter(titles)
