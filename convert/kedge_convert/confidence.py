"""Complete a checked file's contract: which images checked it, and what others say of its answers.

The confidence is fitted where the folder has enough labelled images that nothing used so far: the
last ones of the draw, behind those that more validation would take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.fitting import subject
from kedge_convert.float_model import FloatModel
from kedge_convert.images import marks_of, readable
from kedge_convert.parity import AskedFile
from kedge_convert.source import Source
from kedge_convert.staging import write
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import artefact_of
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.artefact.reseal import resealed
from kedge_runtime.classify.results import check_finite
from kedge_runtime.confidence import fit, sentences
from kedge_runtime.confidence.fit import LabelledOutputs
from kedge_runtime.confidence.labelled import ImageChoice

# Labelled images for a file of slow kernels (.2 s an image): the fewest that fit a confidence.
MOST: dict[Precision, int] = {"int16x8": fit.LEAST_IMAGES}


@dataclass(frozen=True)
class Completed:
    """The confidence that was stored, as of docs/json.md, or nothing; and lines to report."""

    confidence: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def complete(
    file: AskedFile, target: Target, model: FloatModel, count: int, progress: Progress
) -> Completed:
    """Write a checked file again with the marks of its images and, if it can be, a confidence.

    `count`: the most images for the confidence.
    """
    contract = artefact_of(read_content(file.path, target.format)).contract
    marks = tuple(sorted(marks_of(tuple(file.rows))))
    provenance = replace(contract.provenance, validation_images=marks)
    contract = replace(contract, provenance=provenance)
    free = _unused(model.reserve.images.more[::-1][:count], contract, model.source)
    free = free[: MOST.get(target.precision)]
    notes = tuple[str, ...]()
    if len(free) >= fit.LEAST_IMAGES:
        with progress.stage(f"fit confidence of {target}", len(free)) as tick:
            answers = file.ask([each.path for each in free], tick, at_size=True)
        contract = fit.fitted(contract, _outputs(free, check_finite(answers)))
        notes = tuple(sentences.fitted(sentences.plain(contract)))
    write(file.path, *resealed(read_content(file.path, target.format), contract))
    return Completed(sentences.plain(contract) or None, notes)


@dataclass(frozen=True)
class UnusedImage:
    """A labelled image that nothing used so far: the index of its true output, its file's mark."""

    path: Path
    truth: int
    mark: str


def _unused(paths: Sequence[Path], contract: Contract, source: Source) -> list[UnusedImage]:
    """Return the images that can be read, none twice and none that made or checked a file.

    None where there is no ground truth of one class each, or too few are left.
    """
    output = contract.output
    if len(paths) < fit.LEAST_IMAGES or output.kind == "features" or output.multi_label:
        return []
    truth = subject.true_outputs(paths, source)
    if truth is None:
        return []
    choice, free = ImageChoice.beside(contract.provenance), list[UnusedImage]()
    known, read = dict(zip(paths, truth, strict=True)), tuple(readable(paths, source.input))
    for path, mark in zip(read, marks_of(read), strict=True):
        if not choice.refusal(mark):
            choice.take(mark)
            free.append(UnusedImage(path, known[path], mark))
    return free


def _outputs(images: Sequence[UnusedImage], answers: Floats) -> LabelledOutputs:
    truth = np.array([each.truth for each in images], np.int64)
    return LabelledOutputs(answers, truth, tuple(each.mark for each in images))
