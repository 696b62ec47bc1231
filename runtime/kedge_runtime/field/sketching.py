"""Run an artefact on labelled or unlabelled images, and sketch what it saw."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import Classes, check_finite, probabilities
from kedge_runtime.field.evidence import MeasuredFrame
from kedge_runtime.field.monitor import frame_of, measured_frame
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of


def look_at(classifier: Classifier, fitted: Pixels) -> MeasuredFrame:
    """Classify an image of the network's size, RGB uint8 [h, w, 3], and measure it."""
    raw = classifier.engine.run(classifier.preprocessor.look_up(fitted))
    values = classifier.probabilities_in(classifier.numbers(raw))
    return frame_of(fitted, classifier.classes.result(values), classifier.classes, 0.0)


def sketch_images(
    classifier: Classifier,
    images: Iterable[Pixels],
    truth: Sequence[int] | None,
    tick: Callable[[], None] = lambda: None,
) -> Sketch:
    """Return the sketch of images of the network's size, RGB uint8 [h, w, 3].

    `truth`: the output of each one's true class, if it is known.
    """
    frames = []
    for image in images:
        frames.append(look_at(classifier, image))
        tick()
    return _sketch(frames, classifier.contract, truth)


def sketch_answers(
    contract: Contract, answers: Floats, images: Iterable[Floats], truth: Sequence[int] | None
) -> Sketch:
    """Return the sketch of images that were classified before: no engine is opened.

    `answers`: the model's numbers, [n, outputs]. `images`: n rows of `measure.image_statistics`.
    """
    classes, frames = Classes.of_contract(contract), []
    for numbers, image in zip(answers, images, strict=True):
        result = classes.result(probabilities(check_finite(numbers), contract.output))
        frames.append(measured_frame(image, result, classes, 0.0))
    return _sketch(frames, contract, truth)


def _sketch(
    frames: Sequence[MeasuredFrame], contract: Contract, truth: Sequence[int] | None
) -> Sketch:
    predicted = np.array([frame.predicted for frame in frames], np.int64)
    seen = Seen(
        np.stack([frame.values for frame in frames]),
        predicted,
        None if truth is None else predicted == np.asarray(truth),
    )
    outputs = len(contract.labels) + contract.output.label_offset
    return sketch_of(seen, outputs, contract.output.temperature)
