"""Classify images with several classifiers at once."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.errors import UsageError
from kedge_runtime.image.decode import LIMITS
from kedge_runtime.image.objects import Source, plain


class Ensemble(Predictor):
    """Classifies with the mean of several classifiers' probabilities. Threads may share it.

    Call it as a classifier; it has `each`, too.

    Attributes:
        members: The classifiers.
    """

    def __init__(self, members: Iterable[Classifier]) -> None:
        """Join classifiers of the same classes.

        Args:
            members: At least one, all with the same labels in the same order. The first one's
                thresholds count.

        Raises:
            UsageError: There is none, the classes differ, or a model outputs features.
        """
        try:
            self.members = tuple(members)
        except TypeError:
            self.members = ()
        if not self.members or not all(isinstance(one, Classifier) for one in self.members):
            raise UsageError("an ensemble takes a list of classifiers; give at least one")
        for member in self.members:
            member.check_answers()
            check_classes(self.members[0], member)
        # No image has calibrated the mean.
        self.classes = self.members[0].classes.without_floors()

    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the mean of the members' probabilities.

        Members with the same geometry share one decoded image.

        Args:
            image: One image, as for a call.
            colour: The order of an array's channels, "rgb" or "bgr".

        Returns:
            float32 [classes], 0 to 1.

        Raises:
            ImageError: The image can't be read.
            UsageError: An argument is wrong.
            EngineError: An engine fails, or is closed.
        """
        return self.prepared(image, colour)()

    def prepared(self, image: Source, colour: Colour = "rgb") -> Callable[[], Floats]:
        """Decode and preprocess an image; return the function that gives the mean."""
        image = plain(image, LIMITS.bytes)  # an open file is read once
        decoded = {
            member.contract.input.geometry: member.read(image, colour)
            for member in self._one_per_geometry()
        }
        rows = [m.prepared_pixels(decoded[m.contract.input.geometry]) for m in self.members]
        return partial(_mean, rows)

    def __repr__(self) -> str:
        """Return the members."""
        return f"<Ensemble {', '.join(map(repr, self.members))}>"

    def close(self) -> None:
        """Release the members' memory. Every later call raises EngineError."""
        for member in self.members:
            member.close()

    def _one_per_geometry(self) -> Sequence[Classifier]:
        return tuple({m.contract.input.geometry: m for m in self.members}.values())


def _mean(rows: Sequence[Callable[[], Floats]]) -> Floats:
    return np.asarray(np.mean([row() for row in rows], axis=0), np.float32)


def check_classes(first: Classifier, other: Classifier, what: str = "an ensemble") -> None:
    """Raise UsageError unless two classifiers can answer for each other."""
    ours, theirs = first.classes, other.classes
    if (ours.labels, ours.multi_label) == (theirs.labels, theirs.multi_label):
        return
    differs = "another type of output" if ours.labels == theirs.labels else "other classes"
    raise UsageError(
        f"{other.artefact.path}: has {differs} than {first.artefact.path}; "
        f"{what} needs the same labels in the same order and the same type of output"
    )
