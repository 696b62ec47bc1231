"""Compare results with the ground truth of images: folders named like classes, or --truth.

Without --truth an image has a ground truth where its folder is named like a class. An answer
`unknown` is not right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_runtime.drift.truth import SCHEMES, truth_by
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.output import percent

if TYPE_CHECKING:
    from kedge_runtime.artefact.contract import Label
    from kedge_runtime.classify.results import Classes, Result

AUTO = "auto"


@dataclass(frozen=True)
class Mark:
    """The true class of an image, and whether a result names it; `in_set`: in a set of several."""

    truth: "Label"
    right: bool
    in_set: bool = False

    @property
    def words(self) -> str:
        """`right`, or `wrong, it is NAME`."""
        return "right" if self.right else f"wrong, it is {self.truth.name}"


@dataclass
class Marker:
    """Marks the results of one model, and counts them.

    `stated`: the index of each image's class by --truth; None finds it by the image's folder.
    `measure`: what the share of right results is.
    """

    labels: "tuple[Label, ...]"
    stated: Mapping[Path, int] | None = None
    measure: str = "accuracy"
    right: int = 0
    marked: int = 0
    _folders: dict[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, how: str, images: Sequence[Path], classes: "Classes") -> "Marker":
        """Return the marker for a value of --truth; several labels for an image have no marks.

        Raises UsageError for images without a class.
        """
        labels = classes.labels[classes.offset :]
        if how == AUTO and not classes.multi_label:
            return cls(labels)
        return cls(labels, (None if how == AUTO else truth_by(how, images, labels)) or {})

    def mark(self, image: Path, result: "Result") -> Mark | None:
        """Return the mark of a result, or None without ground truth, and count it."""
        index = self._by_folder(image) if self.stated is None else self.stated.get(image)
        if index is None:
            return None
        named = result.predictions if result.set_size else (result.best,)
        right = index in [each.index for each in named] and not result.unknown
        self.marked += 1
        self.right += right
        if result.set_size is not None:
            self.measure = "coverage"
        return Mark(self.labels[index], right, in_set=(result.set_size or 0) > 1)

    def _by_folder(self, image: Path) -> int | None:
        folder = image.parent.name
        if folder not in self._folders:
            try:
                found = SCHEMES["folders"][1]([image], self.labels)
            except UsageError:  # several classes have the name, so it tells nothing
                found = {}
            self._folders[folder] = found.get(image)
        return self._folders[folder]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share; there must be marks."""
        from kedge_runtime.drift.statistics import wilson

        low, high = wilson(self.right, self.marked)
        return float(low), float(high)

    @property
    def summary(self) -> str:
        """Return e.g. `accuracy 90.0 % (9 of 10 images), 95 % CI 59.6 to 98.2 %`.

        With a coverage it is the share of images whose set holds the truth.
        """
        low, high = self.interval
        counts = f"{self.right} of {counted(self.marked, 'image')}"
        share = percent(self.right / self.marked)
        return f"{self.measure} {share} ({counts}), 95 % CI {100 * low:.1f} to {percent(high)}"


def summaries(markers: Sequence[Marker]) -> list[str]:
    """Return the accuracy of each model that has marks, numbered where there are several."""
    lines = [(i, marker.summary) for i, marker in enumerate(markers, 1) if marker.marked]
    return [f"{i}: {line}" if len(markers) > 1 else line for i, line in lines]
