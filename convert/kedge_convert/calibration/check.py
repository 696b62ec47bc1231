"""Check a folder of calibration images: its files, its classes and, with a model, its fitness."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from kedge_convert.batching import batch_size, batches
from kedge_convert.calibration import classes, distribution, enough, files
from kedge_convert.calibration.finding import CalibrationFinding, CalibrationReport
from kedge_convert.export import tflite_converter
from kedge_convert.fitting.subject import norms_of
from kedge_convert.images import tensors, ticking
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import agreement_by
from kedge_convert.sampling import Sampling
from kedge_convert.source import Source, load_source
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Label
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.drift.truth import Truth
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.field.folder import FieldImage
from kedge_runtime.field.folder import check as held_against
from kedge_runtime.image.folder import find_images, other_files
from kedge_runtime.output import quiet

DIRECTORY = "DIR"


class CalibrationJudge(Protocol):
    """A model that judges images."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The names of its classes."""

    def findings(
        self, paths: Sequence[Path], truth: Truth | None, progress: Progress
    ) -> Iterator[CalibrationFinding]:
        """Yield what the model says of images; `truth`: their classes, if known."""


@dataclass(frozen=True)
class FloatJudge:
    """A model that can be converted."""

    source: Source

    @classmethod
    def load(cls, request: SourceRequest, progress: Progress) -> "FloatJudge":
        """Load the model of a request. Raises UsageError."""
        with progress.stage("load model"), quiet():
            return cls(load_source(request))

    @property
    def labels(self) -> tuple[Label, ...]:
        """The names of its classes."""
        return self.source.labels

    def findings(
        self, paths: Sequence[Path], truth: Truth | None, progress: Progress
    ) -> Iterator[CalibrationFinding]:
        """Yield classes, distribution, and whether the images are enough."""
        source = self.source
        with progress.stage("ask the float model", len(paths)) as tick, quiet():
            logits = source.logits(ticking(tensors(paths, source.input), tick))
        if agreement_by(source.output) == "best":
            yield classes.predicted(logits, paths, truth, (source.output, source.labels))
        yield self._distribution(paths, progress)
        with progress.stage("observe ranges", len(paths)) as tick, quiet():
            content = tflite_converter.float32(source)
            ranges = enough.observe(content, ticking(tensors(paths, source.input), tick))
        yield enough.odd(ranges, paths)
        yield enough.finding(ranges)

    def _distribution(self, paths: Sequence[Path], progress: Progress) -> CalibrationFinding:
        norms = norms_of(self.source.model)
        if norms is None:
            text = "the model has no batch norms whose statistics could tell"
            return CalibrationFinding(distribution.CHECK, "open", text)
        with progress.stage("compare with the batch norms", len(paths)) as tick, quiet():
            inputs = ticking(tensors(paths, self.source.input), tick)
            size = batch_size(self.source.model)
            rows = [norms.model.predict_on_batch(batch) for batch in batches(inputs, size)]
        moments = [np.concatenate(each) for each in zip(*rows, strict=True)]
        return distribution.by_norms(distribution.distances(norms, moments))


@dataclass(frozen=True)
class ArtefactJudge:
    """A sealed artefact: its sketch tells what it was made with."""

    content: ModelContent
    classifier: Classifier

    @classmethod
    def load(cls, content: ModelContent) -> "ArtefactJudge":
        """Open the artefact. Raises ArtefactError."""
        with quiet():
            return cls(content, Classifier.of(content, EngineOptions()))

    @property
    def labels(self) -> tuple[Label, ...]:
        """The names of its classes."""
        return self.classifier.contract.labels

    def findings(
        self, paths: Sequence[Path], truth: Truth | None, progress: Progress
    ) -> Iterator[CalibrationFinding]:
        """Yield classes and distribution."""
        contract = self.classifier.contract
        with progress.stage("ask the artefact", len(paths)) as tick, quiet():
            inputs = ticking(tensors(paths, contract.input), tick)
            logits = np.stack(
                [self.classifier.numbers(self.classifier.engine.run(each)) for each in inputs]
            )
        if agreement_by(contract.output) == "best":
            yield classes.predicted(logits, paths, truth, (contract.output, contract.labels))
        yield self._distribution(paths, progress)
        text = "an artefact's ranges are fixed: give the float model"
        yield CalibrationFinding("enough", "open", text)

    def _distribution(self, paths: Sequence[Path], progress: Progress) -> CalibrationFinding:
        if self.classifier.artefact.sketch is None:
            text = "the artefact has no sketch of its calibration images: give the float model"
            return CalibrationFinding(distribution.CHECK, "open", text)
        images = [FieldImage(path.name, path) for path in paths]
        with progress.stage("compare with the sketch", len(paths)) as tick:
            return distribution.by_sketch(held_against(self.classifier, images, tick))


def check(
    folder: Path, sampling: Sampling, judge: CalibrationJudge | None, progress: Progress
) -> CalibrationReport:
    """Check the images of a folder. Raises UsageError for a folder without images."""
    paths = find_images(folder, DIRECTORY)
    with progress.stage("read images", len(paths)) as tick:
        images = files.read(paths, tick)
    usable = list(images.looks)
    order = np.random.default_rng(sampling.seed).permutation(len(usable))
    drawn = [usable[i] for i in order[: sampling.calibration]]
    found = [files.other_kinds(tuple(other_files(folder)))]
    found += files.findings(images, sampling.calibration)
    if usable:
        found += _of_model(folder, (usable, drawn), sampling.calibration, judge, progress)
    return CalibrationReport(folder, images.total, len(usable), len(drawn), tuple(found))


def _of_model(
    folder: Path,
    paths: tuple[Sequence[Path], Sequence[Path]],
    wanted: int,
    judge: CalibrationJudge | None,
    progress: Progress,
) -> Iterator[CalibrationFinding]:
    """Yield what concerns classes and, with a model, answers, distribution and ranges."""
    usable, drawn = paths
    truth = classes.ground_truth(usable, judge.labels) if judge else None
    if judge is not None and truth is not None:
        yield classes.missing(truth, judge.labels, wanted)
    else:
        yield classes.folders(folder, usable)
    if judge is not None:
        yield from judge.findings(drawn, truth, progress)
        return
    text = "not measured without a model: give --model"
    yield CalibrationFinding(distribution.CHECK, "open", text)
    yield CalibrationFinding("enough", "open", text)
