"""A folder of images and references of made-up originals: the tests of drift on the device."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kedge_runtime.artefact.containers import split
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.drift.journal import Failure, ImageFolder, content_digest
from kedge_runtime.drift.reference import Recorded, ReferenceFacts, write_reference

BROKEN = "odd/17 broken.jpg"


def write_photos(folder: Path, count: int) -> None:
    """Write noisy images into two folders, and one that is broken."""
    rng = np.random.default_rng(3)
    for i in range(count):
        place = folder / ("even", "odd")[i % 2] / f"{i:03}.png"
        place.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (3, 3, 3)).astype(np.uint8)
        place.write_bytes(cv2.imencode(".png", cv2.resize(pixels, (20, 20)))[1].tobytes())
    (folder / BROKEN).write_bytes(b"\xff\xd8\xff broken")


def write_for(artefact: Path, photos: Path, path: Path, noise: float = 0.0) -> Path:
    """Record an original that answers as the artefact does, but for normal noise."""
    classifier = Classifier.open(artefact)
    names = [name for name in ImageFolder.of(photos).names if name != BROKEN]
    contents = [(photos / name).read_bytes() for name in names]
    outputs = np.stack([classifier.outputs(content) for content in contents])
    shifted = outputs + np.random.default_rng(5).normal(0, noise, outputs.shape)
    digests = np.stack([content_digest(content) for content in contents])
    facts = replace(ReferenceFacts.of(classifier.contract), failed=(Failure(BROKEN, "no"),))
    parts = [
        Recorded(names[some], digests[some], shifted[some].astype(np.float32))
        for some in (slice(0, 15), slice(15, None))
    ]
    write_reference(path, facts, lambda: parts)
    return path


def calibrated_on(marks: tuple[str, ...], artefact: Path, path: Path) -> Path:
    """Write an artefact again that states these calibration images."""
    provenance = replace(read_artefact(artefact).contract.provenance, calibration_images=marks)
    return resealed(artefact, path, provenance=provenance)


def resealed(artefact: Path, path: Path, **changes: Any) -> Path:
    """Write an artefact again with another contract."""
    sealed = read_artefact(artefact)
    model, _ = split("tflite", artefact.read_bytes())
    path.write_bytes(seal("tflite", model, replace(sealed.contract, **changes), sealed.golden))
    return path
