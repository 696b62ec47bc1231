"""Show the results of images: as text, as a table that compares models, or as JSON."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kedge_runtime.classify.marks import Mark
from kedge_runtime.classify.results import Prediction, Result, disagree
from kedge_runtime.commands.csv_table import CsvTable
from kedge_runtime.output import echo, echo_json, echo_page, note, page, paint, percent
from kedge_runtime.printable import printable
from kedge_runtime.terminal import columns, fold_width

ENSEMBLE = "ensemble"  # the title of an ensemble
NAME_COLUMNS, NARROW_COLUMNS = 30, 14  # of a name; on a terminal the path needs the rest
WIDE = 100  # columns of a terminal that leave room enough
LONGEST = 200  # characters of a name that has a line for itself
# Marks a row in which models disagree; separates the columns of the comparison.
MARK, GAP, WRONG = "! ", "  ", "x "


Failures = list[dict[str, str]]


def text(path: str | Path, result: Result, top: int, mark: Mark | None = None) -> str:
    """Return one line per image for `top` 1, else the image and a line per class.

    `mark`: whether the result is right, where there is ground truth.
    """
    image = printable(path)
    classes = [_class(prediction) for prediction in result.predictions]
    if top == 1 and len(classes) == 1:
        label = short(_label(result), NAME_COLUMNS)
        line = f"{_percent(result.best)}  {label:{_padding()}}  {image}"
        return page([line if mark is None else f"{_verdict(mark)}  {line}{_true_name(mark)}"])
    none = "no class reaches its threshold"
    if result.set_size is not None:
        none = "no class is likely enough for the coverage"
    rows = [f"  {line}" for line in classes] or [f"  {none}; best: {_class(result.best)}"]
    heading = f"{image}: unknown{_too_large(result, top)}" if result.unknown else image
    if mark is not None:
        heading += f"{',' if result.unknown else ':'} {_verdict(mark).rstrip()}{_true_name(mark)}"
    return page([heading, *rows])


def _too_large(result: Result, top: int) -> str:
    """Say that a coverage takes more classes than are allowed, if it does."""
    size = result.set_size or 0
    return f" ({size} classes for the coverage)" if size > top else ""


def _padding() -> int:
    """Return the columns that names are filled up to."""
    width = fold_width(sys.stdout)
    return NAME_COLUMNS if width is None or width >= WIDE else NARROW_COLUMNS


def _verdict(mark: Mark) -> str:
    if not mark.right:
        return paint("wrong", "red", bold=True)
    return paint("its set holds" if mark.in_set else "right", "green")


def _true_name(mark: Mark) -> str:
    name = printable(mark.truth.name, LONGEST)
    if not mark.right:
        return f", it is {name}"
    return f" {name}" if mark.in_set else ""


def comparison_head(titles: Sequence[str]) -> str:
    """Return the numbered models and the head of the table."""
    numbers = [str(i) for i in range(1, len(titles) + 1)]
    legend = [f"{number:>2}  {title}" for number, title in zip(numbers, titles, strict=True)]
    return page([*legend, "", _row("  ", "image", [f"{n:>5}" for n in numbers])])


def comparison_row(path: Path, results: Sequence[Result], marks: Sequence[Mark | None] = ()) -> str:
    """Return the row of an image: each model's best class, and `!` where they disagree.

    `x` stands before a class that is wrong by the ground truth.
    """
    wrong = [WRONG if mark and not mark.right else "" for mark in marks] or [""] * len(results)
    cells = [
        f"{percent(result.best.probability, 0):>5} {sign}{_label(result)}"
        for result, sign in zip(results, wrong, strict=True)
    ]
    return _row(MARK if disagree(results) else "  ", str(path), cells)


def _row(mark: str, image: str, cells: Sequence[str]) -> str:
    room = columns() - len(mark)
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
    return f"{percent(prediction.probability):>7}"


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

    def add(self, image: Path, results: Sequence[Result], marks: Sequence[Mark | None]) -> None:
        """Print the results of an image."""
        echo_page(text(image, results[0], self._top, marks[0]))

    def close(self, failed: Failures, accuracies: Sequence[str] = ()) -> None:
        """Print the accuracy, where there is ground truth."""
        if accuracies:
            echo("", *accuracies)


class ComparisonPrinter:
    """Prints a table that compares several predictors."""

    def __init__(self, titles: Sequence[str]) -> None:
        """Print the head of the table."""
        self._images = self._disagreements = 0
        self._wrong = False
        echo_page(comparison_head(titles))

    def add(self, image: Path, results: Sequence[Result], marks: Sequence[Mark | None]) -> None:
        """Print the row of an image."""
        self._images += 1
        self._disagreements += disagree(results)
        self._wrong |= any(mark and not mark.right for mark in marks)
        echo(comparison_row(image, results, marks))

    def close(self, failed: Failures, accuracies: Sequence[str] = ()) -> None:
        """Print the number of disagreements, and the accuracies where there is ground truth."""
        wrong = ["x the class is wrong"] if self._wrong else []
        disagreements = f"! the models disagree on {self._disagreements} of {self._images} images"
        echo("", disagreements, *wrong, *accuracies)


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

    def add(self, image: Path, results: Sequence[Result], marks: Sequence[Mark | None]) -> None:
        """Add the results of an image; `truth` and `right` where there is ground truth."""
        for title, result, mark in zip(self._titles, results, marks, strict=True):
            known = {} if mark is None else {"truth": mark.truth.id, "right": mark.right}
            self.add_row(image, title, result.to_dict() | known)

    def add_row(self, image: Path, artefact: str, row: dict[str, Any]) -> None:
        """Add one object of the list `results`."""
        self._rows.append({"image": str(image), "artefact": artefact, **row})

    def close(self, failed: Failures, accuracies: Sequence[str] = ()) -> None:
        """Print the object."""
        echo_json({**self._head, "results": self._rows, "failed": failed})


class CsvPrinter:
    """Prints the table of `--csv -`; the accuracies go to stderr."""

    def __init__(self, table: CsvTable) -> None:
        """Take the table, to which the command adds the rows."""
        self._table = table

    def add(self, image: Path, results: Sequence[Result], marks: Sequence[Mark | None]) -> None:
        """Print nothing yet."""

    def close(self, failed: Failures, accuracies: Sequence[str] = ()) -> None:
        """Print the table."""
        click.echo(self._table.text(), nl=False)
        for line in accuracies:
            note(line)


Printer = TextPrinter | ComparisonPrinter | JsonPrinter | CsvPrinter


def printer_for(
    titles: Sequence[str],
    artefacts: Sequence[str],
    top: int,
    *,
    as_json: bool,
    table: CsvTable | None = None,
) -> Printer:
    """Return the printer of the results of predictors; `table`: print that one."""
    if table is not None:
        return CsvPrinter(table)
    if as_json:
        return JsonPrinter(titles, artefacts)
    return TextPrinter(top) if len(titles) == 1 else ComparisonPrinter(titles)
