"""Run an artefact on labelled or unlabelled images, and sketch what it saw."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.file import artefact_of, with_sketch
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ImageError
from kedge_runtime.field.evidence import MeasuredFrame
from kedge_runtime.field.monitor import frame_of
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of
from kedge_runtime.output import quiet


def look_at(classifier: Classifier, fitted: Pixels) -> MeasuredFrame:
    """Classify an image of the network's size, RGB uint8 [h, w, 3], and measure it."""
    raw = classifier.engine.run(classifier.preprocessor.look_up(fitted))
    return measured(classifier, fitted, classifier.numbers(raw))


def measured(classifier: Classifier, fitted: Pixels, numbers: Floats) -> MeasuredFrame:
    """Measure an image of the network's size; `numbers`: the model's outputs for it, [classes]."""
    values = classifier.probabilities_in(numbers)
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
    return sketch_frames(classifier, frames, truth)


def sketch_frames(
    classifier: Classifier, frames: Sequence[MeasuredFrame], truth: Sequence[int] | None
) -> Sketch:
    """Return the sketch of measured images; `truth`: as of `sketch_images`."""
    predicted = np.array([frame.predicted for frame in frames], np.int64)
    seen = Seen(
        np.stack([frame.values for frame in frames]),
        predicted,
        None if truth is None else predicted == np.asarray(truth),
    )
    output = classifier.contract.output
    return sketch_of(seen, len(classifier.classes.labels), output.temperature)


def sketched_again(
    content: ModelContent, paths: Sequence[Path], tick: Callable[[], None] = lambda: None
) -> bytes:
    """Return the bytes of a sealed file with a sketch of images, those that can't be read left out.

    Without ground truth. Raises ArtefactError, EngineError.
    """
    with quiet():
        classifier = Classifier.of(content, EngineOptions())
    with classifier:
        sketch = sketch_images(classifier, _readable(classifier, paths), None, tick)
    return with_sketch(content, artefact_of(content), sketch)


def _readable(classifier: Classifier, paths: Sequence[Path]) -> Iterator[Pixels]:
    plan = classifier.preprocessor
    for path in paths:
        with suppress(ImageError):
            yield plan.fit(plan.read(path))
