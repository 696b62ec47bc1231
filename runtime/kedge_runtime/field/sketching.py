"""Run an artefact on labelled or unlabelled images, and sketch what it saw."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.field.evidence import MeasuredFrame
from kedge_runtime.field.monitor import frame_of
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of
from kedge_runtime.image.objects import Source


def look_at(classifier: Classifier, image: Source) -> MeasuredFrame:
    """Classify an image and measure it. Raises ImageError."""
    fitted = classifier.preprocessor.fit(classifier.read(image))
    raw = classifier.engine.run(classifier.preprocessor.look_up(fitted))
    values = classifier.probabilities_in(classifier.numbers(raw))
    return frame_of(fitted, classifier.classes.result(values), classifier.classes, 0.0)


def sketch_images(
    classifier: Classifier,
    images: Sequence[Path],
    truth: Sequence[int] | None,
    tick: Callable[[], None] = lambda: None,
) -> Sketch:
    """Return the sketch of images; `truth`: the output of each one's true class, if it is known.

    Raises ImageError.
    """
    frames = []
    for image in images:
        frames.append(look_at(classifier, image))
        tick()
    predicted = np.array([frame.predicted for frame in frames], np.int64)
    seen = Seen(
        np.stack([frame.values for frame in frames]),
        predicted,
        None if truth is None else predicted == np.asarray(truth),
    )
    output = classifier.contract.output
    return sketch_of(seen, len(classifier.classes.labels), output.temperature)
