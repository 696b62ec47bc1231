"""Measure an artefact on images, shard by shard; a report is computed from the result."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Flags, Indices
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Label
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.outputs import check_finite
from kedge_runtime.classify.results import BACKGROUND, Prediction
from kedge_runtime.drift.journal import Failure, ImageFolder, Journal, Shard, content_digest
from kedge_runtime.drift.reference import Reference
from kedge_runtime.drift.rows import ROW, Rows, row
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ArtefactError, ImageError
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.output import quiet
from kedge_runtime.pool.executors import InProcess
from kedge_runtime.progress import Bar

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class Task:
    """Hold what all shards share.

    `folder`: of the images; `reference`: the file with the reference's answers; `digest`: the
    artefact's, so that a changed file is another task.
    """

    artefact: Path
    digest: str
    reference: Path
    folder: Path
    engine: EngineOptions
    # It doesn't change the results, so a journal must not depend on it.
    trust: "Trust | None" = field(default=None, repr=False)

    def open(self) -> Classifier:
        """Load the artefact. Raises ArtefactError, EngineError."""
        classifier = Classifier.of(read_content(self.artefact, trust=self.trust), self.engine)
        if classifier.artefact.digest != self.digest:
            raise ArtefactError(f"{self.artefact}: changed during the measurement; start again")
        return classifier


@dataclass(frozen=True)
class Part:
    """Hold the results of some images: ROW records, [n], and the seconds of each, [n].

    The time is from decoded pixels to the artefact's outputs. It alone varies from run to run.
    """

    rows: Rows
    seconds: NDArray[np.float64]
    failed: tuple[Failure, ...] = ()


def measure(task: Task, shard: Shard) -> Part:
    """Run the artefact on a shard's images and compare it with the reference.

    Raises UsageError for a reference of other images, EngineError for an engine that fails.
    """
    rows, seconds, failed = [], [], []
    with quiet():
        for index, name in enumerate(shard.names, shard.start):
            try:
                measured, elapsed = _measured(task, index, name)
            except ImageError as error:
                failed.append(Failure(name, str(error)))
            else:
                rows.append(measured)
                seconds.append(elapsed)
    return Part(np.concatenate([np.empty(0, ROW), *rows]), np.array(seconds), tuple(failed))


# A process works through one task after the other, and opens each once.
@lru_cache(maxsize=1)
def opened(task: Task) -> tuple[Classifier, Reference]:
    """Return the task's artefact, warmed up, and its reference."""
    with quiet():
        classifier, reference = task.open(), Reference(task.reference)
        classifier.engine.warm_up()
    return classifier, reference


def _measured(task: Task, index: int, name: str) -> tuple[Rows, float]:
    """Return an image's row and seconds. Raises ImageError."""
    classifier, reference = opened(task)
    if reference.is_failed(name):
        raise ImageError("unreadable when the reference was recorded")
    content = read_bytes(task.folder / name)
    expected = reference.outputs(name, content_digest(content))
    pixels = classifier.preprocessor.read(content)
    started = perf_counter()
    outputs = classifier.run(pixels)
    seconds = perf_counter() - started
    sides = (expected, reference.facts.output), (check_finite(outputs), classifier.contract.output)
    return row(index, *sides), seconds


def merge(parts: Iterable[Part]) -> Part:
    """Merge parts into one, in the order of the images."""
    parts = tuple(parts)
    rows = np.concatenate([np.empty(0, ROW), *(part.rows for part in parts)])
    order = np.argsort(rows["image"], kind="stable")
    seconds = np.concatenate([np.empty(0), *(part.seconds for part in parts)])
    failed = sorted((f for part in parts for f in part.failed), key=lambda failure: failure.image)
    return Part(rows[order], seconds[order], tuple(failed))


HERE = InProcess()


def measure_all(
    task: Task,
    images: ImageFolder,
    bar: Bar,
    journal: Journal[Part] | None = None,
    workers: Executor = HERE,
) -> Part:
    """Measure all images; shards in the journal aren't measured again."""
    finished = dict(journal.entries()) if journal else {}
    todo = [shard for shard in images.shards() if shard.index not in finished]
    bar.skip(len(images.names) - sum(len(shard.names) for shard in todo))
    parts = list(finished.values())
    for shard, part in zip(todo, workers.map(partial(measure, task), todo), strict=True):
        if journal:
            journal.add(shard.index, part)
        bar.advance(len(shard.names))
        parts.append(part)
    return merge(parts)


@dataclass(frozen=True)
class Evidence:
    """Hold the measured images of an artefact.

    `names`: of all images, by the rows' `image`. `truth`: each image's true class as an index of
    `labels`, int64 [images], or None without ground truth. `multi_label`: an answer is a set of
    independent classes; then there is no ground truth.
    """

    names: Sequence[str]
    labels: Sequence[Label]
    part: Part
    truth: Indices | None = None
    multi_label: bool = False

    @property
    def rows(self) -> Rows:
        """The measured images, [n], in their order."""
        return self.part.rows

    @property
    def true(self) -> Indices | None:
        """The true class of each row, [n]."""
        return None if self.truth is None else self.truth[self.rows["image"]]

    @property
    def flipped(self) -> Flags:
        """The rows that the two sides answer differently, [n]."""
        if self.multi_label:
            return np.asarray(self.rows["changed"])
        return np.not_equal(self.best("reference"), self.best("artefact"))

    def best(self, side: str) -> Indices:
        """Return the best class of `reference` or `artefact`, [n]."""
        return np.asarray(self.rows[side]["top"][:, 0], np.int64)

    def holds(self, side: str, classes: Indices, k: int) -> Flags:
        """Return whether a class, [n], is among the k best of a side, [n]."""
        return np.asarray((self.rows[side]["top"][:, :k] == classes[:, None]).any(axis=1))

    def prediction(self, index: int, confidence: float) -> Prediction:
        """Return a class with its probability."""
        label = self.label(index)
        return Prediction(index, label.id, label.name, confidence)

    def label(self, index: int) -> Label:
        """Return a class's label; -1 is the background's."""
        return self.labels[index] if index >= 0 else BACKGROUND
