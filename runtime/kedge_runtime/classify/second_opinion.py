"""Ask a better artefact again where the first one's answer is a near tie.

Quantisation moves logits by a small noise, so it flips answers whose margin is small, and hardly
any other. `kedge calibrate --second` chooses the margin and stores it in the first file's contract.
"""

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from kedge_runtime.arrays import Array, Floats, Pixels
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.identity import identity
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.classify.arguments import OPEN, check
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.ensemble import check_classes
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import check_finite, limits, probabilities
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image.decode import LIMITS
from kedge_runtime.image.objects import Source, plain
from kedge_runtime.output import percent
from kedge_runtime.records import shown


def closeness(outputs: Floats, output: Output) -> Floats:
    """Return how far a model's numbers, [..., outputs], are from another answer, in logits, [...].

    Best minus second; of independent classes the least distance to a threshold. Temperatures of
    exclusive classes don't change it.
    """
    logits = logits_of(outputs, output)
    if not output.multi_label:
        two = np.partition(logits, -2, axis=-1)[..., -2:]
        return cast(Floats, two[..., 1] - two[..., 0])
    stated = limits(output.thresholds, output.label_offset).astype(np.float64)
    with np.errstate(divide="ignore"):
        at = np.log(stated / (1 - stated)) * (output.temperature if output.kind == "logits" else 1)
    return np.asarray(np.abs(logits - at).min(axis=-1), np.float32)


def logits_of(outputs: Floats, output: Output) -> Floats:
    """Return a model's numbers as logits, [..., classes]; of a softmax the logarithms.

    A quantised probability of 0 counts as half a step.
    """
    if output.kind == "logits":
        return outputs
    step = output.tensor.quantisation.scale if output.tensor.quantisation else 2e-7
    shares = np.clip(outputs.astype(np.float64), step / 2, 1)
    if output.kind == "softmax":
        return np.asarray(np.log(shares), np.float32)
    odds = np.clip(shares, step / 2, 1 - step / 2)
    return np.asarray(np.log(odds / (1 - odds)), np.float32)


class SecondOpinion(Predictor):
    """Classifies with one classifier, and near ties with a better one. Threads may share it.

    Attributes:
        first: The classifier of every image.
        second: The classifier of near ties.
        images: How many images were classified.
        asked: How many of them the second one classified.
    """

    def __init__(self, first: Classifier, second: Classifier, second_content: ModelContent) -> None:
        """Join two classifiers. `second_content`: the second one's file.

        Raises UsageError where the first one's contract has no rule for the second one.
        """
        for member in (first, second):
            if not isinstance(member, Classifier):
                raise UsageError(f"a second opinion takes two classifiers, got {shown(member)}")
            member.check_answers()
        check_classes(first, second, "a second opinion")
        rule = first.contract.second
        command = f"kedge calibrate {first.artefact.path} --second {second.artefact.path}"
        if rule is None:
            raise UsageError(f"--second: {first.artefact.path}: has no margin for it: `{command}`")
        if rule.model != identity(second_content, second.contract):
            raise UsageError(
                f"--second: {second.artefact.path}: is not the model that the margin was chosen "
                f"for; give that one, or `{command}`"
            )
        self.first, self.second, self.rule = first, second, rule
        # No labelled images have calibrated the pair.
        self.classes = second.classes.without_floors()
        self.images = self.asked = 0
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        first: str | os.PathLike[str],
        second: str | os.PathLike[str],
        *,
        threads: int | None = None,
    ) -> "SecondOpinion":
        """Open two artefacts of the same classes.

        Args:
            first: The file that answers; `kedge calibrate --second` chose its margin.
            second: The better file.
            threads: Of each engine; default: all cores this process may use.

        Returns:
            A predictor, to call as a classifier.

        Raises:
            ArtefactError: A file is missing, damaged, or changed after it was sealed.
            EngineError: An engine is missing, or refuses its file.
            UsageError: The margin was not chosen for these files, or an argument is wrong.
        """
        for path in (first, second):
            check(OPEN, path=path, threads=threads)
        content = read_content(Path(second))
        options = EngineOptions(threads if threads is None else int(threads))
        return cls(
            Classifier.open(first, threads=threads), Classifier.of(content, options), content
        )

    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the probabilities of the first classifier, or of the second for a near tie.

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
        """Decode an image and preprocess it for the first; return the function for the rest.

        Few images are near ties, so the second one's preprocessing waits until it is asked.
        """
        image = plain(image, LIMITS.bytes)  # an open file is read once
        pixels = self.first.read(image, colour)
        tensor = self.first.preprocessor.tensor(pixels)
        again = partial(self._again, image, colour, pixels)
        return partial(self._probabilities, tensor, again)

    def _probabilities(self, tensor: Array, again: Callable[[], Floats]) -> Floats:
        """Return the first one's probabilities, or `again`'s for a near tie."""
        first = self.first
        outputs = check_finite(first.numbers(first.engine.run(tensor)))
        is_near = bool(closeness(outputs, first.contract.output) < self.rule.margin)
        with self._lock:
            self.images += 1
            self.asked += is_near
        return again() if is_near else probabilities(outputs, first.contract.output)

    def _again(self, image: Source, colour: Colour, pixels: Pixels) -> Floats:
        """Return the second one's probabilities. `pixels`: as the first one read the image."""
        second = self.second
        if second.contract.input.geometry != self.first.contract.input.geometry:
            pixels = second.read(image, colour)
        return second.prepared_pixels(pixels)()

    def counts(self) -> dict[str, int]:
        """Count the images, and those that were asked again.

        Returns:
            `second_images` and `second_asked`.
        """
        with self._lock:
            return {"second_images": self.images, "second_asked": self.asked}

    def summary(self) -> tuple[str, ...]:
        """Return how many images were asked again, beside what the margin was chosen for.

        Returns:
            One line, or none before the first image.
        """
        if not self.images:
            return ()
        share, expected = percent(self.asked / self.images), percent(self.rule.asked[0])
        counts = f"{self.asked} of {counted(self.images, 'image')}"
        name = self.second.artefact.path.name
        return (f"second opinion: asked {name} for {counts} ({share}, expected {expected})",)

    def __repr__(self) -> str:
        """Return both classifiers."""
        return f"<SecondOpinion {self.first!r}, then {self.second!r}>"

    def close(self) -> None:
        """Release the memory of both. Every later call raises EngineError."""
        self.first.close()
        self.second.close()
