"""Complete a checked file's contract: which images checked it, and what others say of its answers.

The confidence is fitted where the folder has enough labelled images that nothing used so far: the
last ones of the draw, behind those that more validation would take.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.fitting import subject
from kedge_convert.float_model import FloatModel
from kedge_convert.images import marks_of
from kedge_convert.staging import write
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.artefact.reseal import resealed
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.confidence import fit, sentences
from kedge_runtime.confidence.labelled import LabelledImages, ask
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.output import quiet

# Labelled images for a file of slow kernels (.2 s an image): the fewest that fit a confidence, and
# some for those that are left out.
MOST: dict[Precision, int] = {"int16x8": fit.LEAST_IMAGES + 20}


@dataclass(frozen=True)
class Completed:
    """The confidence that was stored, as of docs/json.md, or nothing; and lines to report."""

    confidence: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def complete(
    path: Path, target: Target, model: FloatModel, used: int, count: int, progress: Progress
) -> Completed:
    """Write the file at `path` again with the marks of its images and, if it can be, a confidence.

    `used`: the number of validation images; `count`: the most images for the confidence.
    """
    content = read_content(path, target.format)
    with quiet():
        classifier = Classifier.of(content, EngineOptions())
    images = model.reserve.images.validation[:used]
    provenance = replace(classifier.contract.provenance, validation_images=marks_of(images))
    contract = replace(classifier.contract, provenance=provenance)
    marked = Classifier(replace(classifier.artefact, contract=contract), classifier.engine)
    contract, notes = _calibrated(marked, target, model, count, progress)
    write(path, resealed(content, classifier, contract))
    return Completed(sentences.plain(contract) or None, notes)


def _calibrated(
    classifier: Classifier, target: Target, model: FloatModel, count: int, progress: Progress
) -> tuple[Contract, tuple[str, ...]]:
    """Return the contract with a confidence, where enough labelled images are left for it."""
    contract, most = classifier.contract, min(count, MOST.get(target.precision, count))
    paths = model.reserve.images.more[::-1][:most]
    if len(paths) < fit.LEAST_IMAGES or contract.output.kind == "features":
        return contract, ()
    truth = None if contract.output.multi_label else subject.true_outputs(paths, model.source)
    if truth is None:
        return contract, ()
    images = LabelledImages(paths, np.array(truth, np.int64))
    with progress.stage(f"fit confidence of {target}", len(paths)) as tick:
        asked = ask(classifier, images, tick)
    if len(asked.labelled.marks) < fit.LEAST_IMAGES:
        return contract, ()
    contract = fit.fitted(contract, asked.labelled)
    return contract, tuple(sentences.fitted(sentences.plain(contract)))
