"""Run a model on images with faults, and keep what `field.py` judges: a table of frames."""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from field_faults import FAULTS
from kedge_models.demo import pictograms
from kedge_runtime.arrays import Array, Floats, Indices, Pixels
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.ranking import entropy
from kedge_runtime.classify.results import softmax
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.field.evidence import MeasuredFrame
from kedge_runtime.field.measure import measure
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of
from kedge_runtime.image.folder import find_images

LINES = 288  # the short side of a frame: a camera's
CLEAN = "clean"
ONCE = 100_000  # rendered images, each shown once


def frame(image: Pixels) -> Pixels:
    """Return an image as a camera of LINES lines would give it."""
    scale = min(1.0, LINES / min(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def versions(image: Pixels, index: int) -> Iterator[tuple[str, float, bool, Pixels]]:
    """Yield fault, strength, whether it is mirrored, and the image: clean ones both ways."""
    for mirrored in (False, True):
        seen = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
        yield CLEAN, 0.0, mirrored, seen
        if mirrored != bool(index % 2):
            continue
        for name, fault in FAULTS.items():
            for strength in fault.strengths:
                rng = np.random.default_rng((index, int(mirrored)))
                yield name, strength, mirrored, fault.apply(seen, strength, rng)


def look(classifier: Classifier, image: Pixels) -> tuple[Floats, Floats]:
    """Return the statistics of an image, those of the answer left 0, and the outputs."""
    fitted = classifier.preprocessor.fit(image)
    outputs = classifier.numbers(classifier.engine.run(classifier.preprocessor.look_up(fitted)))
    return measure(fitted, (0.0, 0.0, 0.0)), outputs


def measured(arguments: argparse.Namespace) -> None:
    """Measure the images that no other process has taken, for some minutes."""
    cv2.setNumThreads(1)
    began, paths = time.monotonic(), find_images(arguments.images)
    classifier = Classifier.open(arguments.artefact, threads=1)
    truth = read_truth(paths, classifier.contract.labels)
    assert truth, "images with ground truth are needed"
    (arguments.work / "taken").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Any, ...]] = []
    for index in np.random.default_rng(0).permutation(len(paths)).tolist():
        if time.monotonic() - began > arguments.seconds:
            break
        if _is_taken(arguments.work / "taken" / str(index)):
            continue
        image = frame(classifier.read(paths[index]))
        for name, strength, _, seen in versions(image, index):
            rows.append((name, strength, index, truth[paths[index]], *look(classifier, seen)))
    _write(arguments.work / f"part-{os.getpid()}.npz", rows)


def _is_taken(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def _write(path: Path, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        fault, strength, image, true, values, outputs = map(np.array, zip(*rows, strict=True))
        np.savez(path, fault=fault, strength=strength, image=image, true=true, values=values,
                 outputs=outputs.astype(np.float16))  # fmt: skip


def rendered(arguments: argparse.Namespace) -> None:
    """Render images of the demo and measure each once, for some minutes."""
    cv2.setNumThreads(1)
    began, seed = time.monotonic(), os.getpid()
    classifier = Classifier.open(arguments.artefact, threads=1)
    rng, rows = np.random.default_rng(seed), list[tuple[Any, ...]]()
    while time.monotonic() - began < arguments.seconds and len(rows) < ONCE:
        index = int(rng.integers(len(pictograms.NAMES)))
        image = pictograms.render(index, rng)
        rows.append((CLEAN, 0.0, len(rows), index, *look(classifier, image)))
    _write(arguments.work / f"fresh-{seed}.npz", rows)


@dataclass(frozen=True)
class Table:
    """What was measured, a row for each version of an image; `outputs` before the activation."""

    fault: Array
    strength: Array
    image: Indices
    true: Indices
    values: Floats
    outputs: Floats

    @classmethod
    def read(cls, paths: list[Path]) -> "Table":
        """Join the files of `measure` or of `fresh`."""
        parts = [np.load(path) for path in paths]
        names = ("fault", "strength", "image", "true", "values", "outputs")
        return cls(*(np.concatenate([part[name] for part in parts]) for name in names))

    def without(self, classes: Indices) -> "Table":
        """Return the table of a model that lacks some classes."""
        outputs = self.outputs.copy()
        outputs[:, classes] = -np.inf
        return Table(self.fault, self.strength, self.image, self.true, self.values, outputs)

    @cached_property
    def answers(self) -> tuple[Floats, Indices, Array]:
        """The statistics with the answer's own, the predicted outputs, and which are right."""
        shares = softmax(self.outputs.astype(np.float32))
        values, best = self.values.copy(), np.sort(shares, axis=1)[:, :-3:-1]
        values[:, 0], values[:, 1] = best[:, 0], best[:, 0] - best[:, 1]
        values[:, 2] = [entropy(row) for row in shares]
        predicted = shares.argmax(axis=1)
        return values, predicted, predicted == self.true

    def rows(self, images: Indices, fault: str = CLEAN, strength: float = 0.0) -> Indices:
        """Return the rows of images with a fault."""
        found = (self.fault == fault) & (self.strength == strength) & np.isin(self.image, images)
        return np.flatnonzero(found)

    def sketch(self, images: Indices) -> Sketch:
        """Return the sketch of clean images, of each the first version."""
        rows = self.rows(images)
        rows = rows[np.unique(self.image[rows], return_index=True)[1]]
        values, predicted, right = self.answers
        return sketch_of(Seen(values[rows], predicted[rows], right[rows]), self.outputs.shape[1])

    def accuracy(self, rows: Indices) -> float:
        """Return the share of right answers."""
        return float(self.answers[2][rows].mean())

    def frame(self, row: int) -> MeasuredFrame:
        """Return a row as a frame."""
        values, predicted, _ = self.answers
        best = int(predicted[row])
        return MeasuredFrame(values[row], best, (best,), 0.0)
