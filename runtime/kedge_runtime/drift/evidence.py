"""What a report is made of: the rows of all pictures, their names, and their true classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kedge_runtime.contract import Label
from kedge_runtime.drift.intervals import Flags, Indices
from kedge_runtime.drift.measure import Part
from kedge_runtime.drift.rows import Rows
from kedge_runtime.results import BACKGROUND, Prediction


@dataclass(frozen=True)
class Evidence:
    """`names`: of all pictures, by the rows' `picture`. `truth`: each picture's true class as an
    index of `labels`, int64 [pictures], or None where nothing tells. `multi_label`: an answer is
    a set of independent classes, of which labels of pictures tell nothing.
    """

    names: Sequence[str]
    labels: Sequence[Label]
    part: Part
    truth: Indices | None = None
    multi_label: bool = False

    @property
    def rows(self) -> Rows:
        """The measured pictures, [n], in their order."""
        return self.part.rows

    @property
    def true(self) -> Indices | None:
        """The true class of each row, [n]."""
        return None if self.truth is None else self.truth[self.rows["picture"]]

    @property
    def flipped(self) -> Flags:
        """Which rows the two sides answer differently, [n]."""
        if self.multi_label:
            return np.asarray(self.rows["changed"])
        return np.not_equal(self.best("original"), self.best("artefact"))

    def best(self, side: str) -> Indices:
        """Return the best class of `original` or `artefact`, [n]."""
        return np.asarray(self.rows[side]["top"][:, 0], np.int64)

    def holds(self, side: str, classes: Indices, k: int) -> Flags:
        """Return whether a class, [n], is among the k best of a side, [n]."""
        return np.asarray((self.rows[side]["top"][:, :k] == classes[:, None]).any(axis=1))

    def prediction(self, index: int, confidence: float) -> Prediction:
        """Return a class with its probability."""
        label = self.label(index)
        return Prediction(index, label.id, label.name, confidence)

    def label(self, index: int) -> Label:
        """Return a class's label; -1 is the background's."""
        return self.labels[index] if index >= 0 else BACKGROUND
