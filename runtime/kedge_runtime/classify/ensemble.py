"""Average the probabilities of several classifiers."""

from collections.abc import Sequence

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Colour
from kedge_runtime.classify.classifier import Classifier, Predictor
from kedge_runtime.errors import UsageError
from kedge_runtime.image.decode import Source


class Ensemble(Predictor):
    """Classifies with the mean of several classifiers' probabilities. Threads may share it."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        """Join classifiers of the same classes; the first one's thresholds count.

        Raises UsageError for an empty list, for classes that differ, and for feature models.
        """
        if not members:
            raise UsageError("the ensemble has no classifiers; give at least one")
        self.members = tuple(members)
        for member in self.members:
            member.check_answers()
            _check_classes(self.members[0], member)
        self.classes = self.members[0].classes

    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the mean of the members' probabilities, float32 [classes], 0..1.

        Members with the same geometry share one decoded image.
        """
        decoded = {
            member.contract.input.geometry: member.read(image, colour)
            for member in self._one_per_geometry()
        }
        rows = [m.probabilities_of(decoded[m.contract.input.geometry]) for m in self.members]
        return np.asarray(np.mean(rows, axis=0), np.float32)

    def _one_per_geometry(self) -> Sequence[Classifier]:
        return tuple({m.contract.input.geometry: m for m in self.members}.values())


def _check_classes(first: Classifier, other: Classifier) -> None:
    ours, theirs = first.classes, other.classes
    if (ours.labels, ours.multi_label) == (theirs.labels, theirs.multi_label):
        return
    what = "another type of output" if ours.labels == theirs.labels else "other classes"
    raise UsageError(
        f"{other.artefact.path}: has {what} than {first.artefact.path}; "
        "an ensemble needs the same labels in the same order and the same type of output"
    )
