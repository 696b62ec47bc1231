"""Write results as CSV: one row for each image and artefact, the best classes in columns."""

import io
from collections.abc import Sequence
from pathlib import Path

from kedge_runtime.classify.marks import Mark
from kedge_runtime.classify.results import Result

HEAD = ("image", "artefact", "label", "unknown", "truth", "right")
SIZE = ("set_size",)  # with a coverage
# Of each class, numbered from 1.
CLASS = ("class", "id", "probability")


class CsvTable:
    """Collects rows; `text` writes the table."""

    def __init__(self, titles: Sequence[str], top: int) -> None:
        """Take the names of the models, and the number of classes of a row."""
        self._titles, self._top = titles, top
        self._size: tuple[str, ...] = ()
        self.rows = list[list[str]]()

    def add(self, image: Path, results: Sequence[Result], marks: Sequence[Mark | None]) -> None:
        """Add the results of an image."""
        for title, result, mark in zip(self._titles, results, marks, strict=True):
            if result.set_size is not None:
                self._size = SIZE
            size = [] if result.set_size is None else [str(result.set_size)]
            cells = [*_answer(result, mark), *size, *self._classes(result)]
            self.rows.append([str(image), title, *cells])

    def _classes(self, result: Result) -> list[str]:
        cells = [
            cell
            for each in result.predictions[: self._top]
            for cell in (each.name, each.id, f"{each.probability:.6f}")
        ]
        return cells + [""] * (len(CLASS) * self._top - len(cells))

    def text(self) -> str:
        """Return the table with its head; lines end in a newline alone."""
        import csv  # few calls write a table

        columns = [f"{name}_{i}" for i in range(1, self._top + 1) for name in CLASS]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([[*HEAD, *self._size, *columns], *self.rows])
        return file.getvalue()


def _answer(result: Result, mark: Mark | None) -> list[str]:
    words = [result.label or "", _word(result.unknown)]
    return [*words, *(("", "") if mark is None else (mark.truth.id, _word(mark.right)))]


def _word(value: bool) -> str:
    return "true" if value else "false"
