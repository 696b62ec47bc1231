"""Measure an artefact on images, shard by shard, and hold what a report is made of."""

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
from kedge_runtime.drift.journal import Failure, Journal, Pictures, Shard, content_digest
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
    """What is the same for all shards: `folder` holds the pictures, `reference` their answers.

    `digest`: the artefact's, so that a changed file is another task.
    """

    artefact: Path
    digest: str
    reference: Path
    folder: Path
    options: EngineOptions
    # Has no part in the results, nor in what is written of a task.
    trust: "Trust | None" = field(default=None, repr=False)

    def open(self) -> Classifier:
        """Load the artefact. Raises ArtefactError, EngineError."""
        classifier = Classifier.of(read_content(self.artefact, trust=self.trust), self.options)
        if classifier.artefact.digest != self.digest:
            raise ArtefactError(f"{self.artefact}: replaced while it was measured; start again")
        return classifier


@dataclass(frozen=True)
class Part:
    """What some pictures gave: ROW records, [n], and the seconds that each took, [n].

    The time is from decoded pixels to the artefact's outputs. It alone varies from run to run.
    """

    rows: Rows
    seconds: NDArray[np.float64]
    failed: tuple[Failure, ...] = ()


def measure(task: Task, shard: Shard) -> Part:
    """Return what the artefact and the original give for a shard's pictures.

    Raises UsageError for a reference of other pictures, EngineError for an engine that fails.
    """
    classifier, reference = opened(task)
    rows, seconds, failed = [], [], []
    with quiet():
        for index, name in enumerate(shard.names, shard.start):
            try:
                measured, took = _measured(classifier, reference, task.folder, (index, name))
            except ImageError as error:
                failed.append(Failure(name, str(error)))
            else:
                rows.append(measured)
                seconds.append(took)
    return Part(np.concatenate([np.empty(0, ROW), *rows]), np.array(seconds), tuple(failed))


# A process works through one task after the other, and opens each once.
@lru_cache(maxsize=1)
def opened(task: Task) -> tuple[Classifier, Reference]:
    """Return the task's artefact, warmed up, and its reference."""
    with quiet():
        classifier, reference = task.open(), Reference(task.reference)
        classifier.engine.warm_up()
    return classifier, reference


def _measured(
    classifier: Classifier, reference: Reference, folder: Path, picture: tuple[int, str]
) -> tuple[Rows, float]:
    index, name = picture
    if reference.is_failed(name):
        raise ImageError("couldn't be read when the reference was recorded")
    content = read_bytes(folder / name)
    original = reference.outputs(name, content_digest(content))
    pixels = classifier.preprocessor.read(content)
    started = perf_counter()
    found = classifier.run(pixels)
    seconds = perf_counter() - started
    sides = (original, reference.facts.output), (check_finite(found), classifier.contract.output)
    return row(index, *sides), seconds


def merge(parts: Iterable[Part]) -> Part:
    """Return one part of all pictures, in their order."""
    parts = tuple(parts)
    rows = np.concatenate([np.empty(0, ROW), *(part.rows for part in parts)])
    order = np.argsort(rows["picture"], kind="stable")
    seconds = np.concatenate([np.empty(0), *(part.seconds for part in parts)])
    failed = sorted((f for part in parts for f in part.failed), key=lambda failure: failure.image)
    return Part(rows[order], seconds[order], tuple(failed))


HERE = InProcess()


def measure_all(
    task: Task,
    pictures: Pictures,
    bar: Bar,
    journal: Journal[Part] | None = None,
    workers: Executor = HERE,
) -> Part:
    """Return what all pictures give; shards that the journal knows aren't done again."""
    known = dict(journal.entries()) if journal else {}
    todo = [shard for shard in pictures.shards() if shard.index not in known]
    bar.skip(len(pictures.names) - sum(len(shard.names) for shard in todo))
    parts = list(known.values())
    for shard, part in zip(todo, workers.map(partial(measure, task), todo), strict=True):
        if journal:
            journal.add(shard.index, part)
        bar.advance(len(shard.names))
        parts.append(part)
    return merge(parts)


@dataclass(frozen=True)
class Evidence:
    """`names`: of all pictures, by the rows' `picture`. `truth`: each picture's true class as an
    index of `labels`, int64 [pictures], or None where nothing tells. `multi_label`: an answer is
    a set of independent classes, of which labels of pictures tell nothing.
    """

    names: Sequence[str]
    labels: Sequence[Label]
    part: Part
    truth: Indices | None = None
    multi_label: bool = False

    @property
    def rows(self) -> Rows:
        """The measured pictures, [n], in their order."""
        return self.part.rows

    @property
    def true(self) -> Indices | None:
        """The true class of each row, [n]."""
        return None if self.truth is None else self.truth[self.rows["picture"]]

    @property
    def flipped(self) -> Flags:
        """Which rows the two sides answer differently, [n]."""
        if self.multi_label:
            return np.asarray(self.rows["changed"])
        return np.not_equal(self.best("original"), self.best("artefact"))

    def best(self, side: str) -> Indices:
        """Return the best class of `original` or `artefact`, [n]."""
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
