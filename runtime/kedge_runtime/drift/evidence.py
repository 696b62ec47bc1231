"""Hold what was measured of an artefact, and read answers out of it."""

from collections.abc import Sequence

import numpy as np

from kedge_runtime.arrays import Flags, Indices
from kedge_runtime.artefact.contract import Label
from kedge_runtime.classify.results import BACKGROUND, Prediction
from kedge_runtime.drift.measure import Part, Rows
from kedge_runtime.frozen import dataclass


@dataclass(frozen=True)
class Evidence:
    """Hold the measured images of an artefact.

    `names`: of all images, by the rows' `image`. `truth`: each image's true class as an index of
    `labels`, int64 [images], or None without ground truth. `multi_label`: an answer is a set of
    independent classes; then there is no ground truth.
    """

    names: Sequence[str]
    labels: Sequence[Label]
    part: Part
    truth: Indices | None = None
    multi_label: bool = False

    @property
    def rows(self) -> Rows:
        """The measured images, [n], in their order."""
        return self.part.rows

    @property
    def true(self) -> Indices | None:
        """The true class of each row, [n]."""
        return None if self.truth is None else self.truth[self.rows["image"]]

    @property
    def flipped(self) -> Flags:
        """The rows that the two sides answer differently, [n]."""
        if self.multi_label:
            return np.asarray(self.rows["changed"])
        return np.not_equal(self.best("reference"), self.best("artefact"))

    def best(self, side: str) -> Indices:
        """Return the best class of `reference` or `artefact`, [n]."""
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
