"""Record a reference: the answers of the float model, or of another artefact, to images."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Array, Floats, Indices, Pixels
from kedge_runtime.artefact.containers import FORMATS
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Tensor
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.checks.hardware import identity
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import check_finite
from kedge_runtime.drift import journal
from kedge_runtime.drift.codecs import Answers, AnswersCodec, shards_of
from kedge_runtime.drift.journal import (
    Failure,
    ImageFolder,
    Journal,
    Shard,
    content_digest,
)
from kedge_runtime.drift.reference import (
    SUFFIX,
    Recorded,
    Reference,
    ReferenceFacts,
    write_reference,
)
from kedge_runtime.drift.report import Attribution, DriftReport
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ImageError, KedgeError, UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.ahead import ahead
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.image.preprocessing import Preprocessor
from kedge_runtime.output import quiet
from kedge_runtime.progress import Bar

# Imported by name: a device compares with a reference and doesn't have the converter.
CONVERTER = "kedge_convert.drift.hooks"


@dataclass(frozen=True)
class Against:
    """Hold the value of `--against`, and an artefact that was made from that model.

    `model`: a card's name, demo, a model file, a recorded reference, or another artefact;
    `weights`: for a card, imagenet or a file; `artefact`: its contract has the preprocessing.
    """

    model: str
    weights: str
    artefact: Artefact

    @property
    def is_recorded(self) -> bool:
        """Whether it is a recorded reference."""
        return is_reference(self.model)


@dataclass(frozen=True)
class Sample:
    """Hold images, and the true class of each as an index of the labels, int64 [n], or None."""

    images: tuple[Path, ...]
    truth: Indices | None


def is_reference(name: str) -> bool:
    """Whether a value of `--against` names a recorded reference, in any case."""
    return name.lower().endswith(SUFFIX)


def is_artefact(name: str) -> bool:
    """Whether a value of `--against` names another artefact."""
    return Path(name).suffix.lower().lstrip(".") in FORMATS


@dataclass(frozen=True)
class LayerFindings:
    """Hold the drift of an artefact's layers, ready to show.

    `plain`: the documented JSON object (docs/localisation.md); `table`: the worst layers, in 80
    columns; `chart`: all layers, an SVG document.
    """

    artefact: str
    plain: dict[str, Any]
    table: str
    chart: str


class Converter(Protocol):
    """Name what the runtime calls in the converter; mypy checks both sides."""

    def record(self, against: Against, images: ImageFolder, path: Path) -> None:
        """Record the float model's answers at `path`, unless they are there already."""

    def attribute(
        self,
        against: Against,
        artefacts: Sequence[Artefact],
        sample: Sample,
        engine: EngineOptions,
    ) -> list[Attribution]:
        """Return what each step from Keras to the engine adds to each artefact's drift."""

    def localise(
        self, against: Against, artefacts: Sequence[Artefact], sample: Sample
    ) -> list[LayerFindings]:
        """Return the drift of each artefact's layers."""

    def page(self, report: DriftReport) -> str:
        """Return a run as an HTML document."""


def converter() -> Converter:
    """Return the converter. Raises ModuleNotFoundError where it isn't installed."""
    return cast("Converter", import_module(CONVERTER))


@dataclass(frozen=True)
class Recorder:
    """Hold the model whose answers are recorded.

    `answer`: returns its outputs for input tensors, float32 [n, classes]; `name`: for the progress
    bar.
    """

    preprocessor: Preprocessor
    answer: Callable[[Iterator[NDArray[Any]]], Floats]
    name: str = "float model"


def write(path: Path, facts: ReferenceFacts, images: ImageFolder, recorder: Recorder) -> None:
    """Write the answers to `path`, unless they are there already.

    An interrupted run resumes. Raises UsageError when the file can't be written.
    """
    facts = replace(facts, work=_work(facts, images))
    if _is_done(path, facts.work):
        return
    codec = AnswersCodec(shards_of(images))
    with Journal(journal.beside(path), facts.work, codec) as finished:
        _record_missing(recorder, images, finished)
        failed = [failure for _, answers in finished.entries() for failure in answers.failed]
        facts = replace(facts, failed=tuple(sorted(failed, key=lambda failure: failure.image)))
        write_reference(path, facts, lambda: _recorded(finished))
        finished.remove()


def record_artefact(
    model: ModelContent, compared: Artefact, images: ImageFolder, path: Path
) -> None:
    """Write an artefact's answers to `path`, with the preprocessing of its own contract.

    Raises UsageError where `compared` has other labels, and for a model of features.
    """
    with quiet():
        classifier = Classifier.of(model, EngineOptions())
    contract = classifier.contract
    classifier.check_answers()
    if [label.name for label in contract.labels] != [
        label.name for label in compared.contract.labels
    ]:
        raise UsageError(
            f"--against: {model.path}: its labels differ from those of {compared.path}; "
            "`kedge seal --reseal --labels FILE` replaces them"
        )
    facts = replace(
        ReferenceFacts.of(contract),
        source=f"{model.path.name} {classifier.artefact.digest}",
        weights_digest="",
        output=replace(contract.output, tensor=Tensor()),
        tools=identity()["packages"],
    )

    def answer(tensors: Iterator[NDArray[Any]]) -> Floats:
        rows = (classifier.numbers(classifier.engine.run(tensor)) for tensor in tensors)
        return np.stack(list(rows))

    write(path, facts, images, Recorder(classifier.preprocessor, answer, model.path.name))


def _work(facts: ReferenceFacts, images: ImageFolder) -> str:
    """Return a digest of everything that changes a reference."""
    return hashlib.sha256(f"{facts}{images.fingerprint()}".encode()).hexdigest()


def _is_done(path: Path, work: str) -> bool:
    try:
        return Reference(path).facts.work == work
    except KedgeError:
        return False


def _record_missing(recorder: Recorder, images: ImageFolder, finished: Journal[Answers]) -> None:
    """Record the answers to the shards that aren't in the journal."""
    present = {shard for shard, _ in finished.entries()}
    with Bar(recorder.name, len(images.names)) as bar:
        for shard in images.shards():
            if shard.index in present:
                bar.skip(len(shard.names))
                continue
            finished.add(shard.index, _answers(recorder, images.folder, shard))
            bar.advance(len(shard.names))


def _answers(recorder: Recorder, folder: Path, shard: Shard) -> Answers:
    preprocessor = recorder.preprocessor
    names, digests, tensors, failed = [], [], [], list[Failure]()

    def prepare(name: str) -> tuple[Pixels, Array]:
        content = read_bytes(folder / name)
        return content_digest(content), preprocessor.tensor(preprocessor.read(content))

    with quiet(), ahead(prepare, shard.names) as prepared:
        for name, image in prepared:
            try:
                digest, tensor = image()
            except ImageError as error:
                failed.append(Failure(name, str(error)))
                continue
            names.append(name)
            digests.append(digest)
            tensors.append(tensor)
        outputs = recorder.answer(iter(tensors)) if tensors else np.empty((0, 0), np.float32)
    recorded = Recorded(names, np.array(digests, np.uint8), check_finite(outputs))
    return Answers(recorded, tuple(failed))


def _recorded(finished: Journal[Answers]) -> Iterator[Recorded]:
    return (answers.recorded for _, answers in finished.entries() if answers.recorded.names)
