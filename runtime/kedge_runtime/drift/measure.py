"""Measure an artefact on images, shard by shard, and keep a few numbers of each image: its row.

A row has the reference's answer, the artefact's, and the distance of their outputs; 50 000 images
take some megabytes. Every figure of a report is computed from all rows in the order of the images.
So it is the same to the last bit, however the images were divided among processes, machines or
days.
"""

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import field, replace
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Array, Flags, Floats, Indices, Pixels
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Output
from kedge_runtime.classify import results as head
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.ranking import descending, entropy, mean_binary_entropy
from kedge_runtime.classify.results import check_finite
from kedge_runtime.confidence.conformal import floor_for
from kedge_runtime.confidence.coverage import SHOWN, shown
from kedge_runtime.drift import statistics
from kedge_runtime.drift.journal import Failure, ImageFolder, Journal, Shard, content_digest
from kedge_runtime.drift.reference import Reference
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ArtefactError, ImageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.ahead import ahead
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.output import quiet
from kedge_runtime.pool import InProcess
from kedge_runtime.progress import Bar

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


TOP = 5
Rows = NDArray[np.void]

# `top`: the best classes as indices of the labels, -1 for the background, NONE where there are
# fewer classes; `margin`: best probability minus the second; `entropy`: normalised, 0..1.
# Of independent classes, `top`: the labels of the answer, first those that the other side lacks;
# `labels`: their number; `margin`: the least distance of a probability to its threshold.
ANSWER = np.dtype(
    [
        ("top", "<i4", TOP),
        ("confidence", "<f8"),
        ("margin", "<f8"),
        ("entropy", "<f8"),
        ("labels", "<i4"),
    ]
)
NONE = -2
SIDES = ("reference", "artefact")
DISTANCES = ("signal", "noise", "cosine", "max_error", "mean_error")
# `image`: its index in the sorted folder. `kl` in nats; `signal` and `noise`: the sums of the
# squared reference outputs and of the squared differences; `cosine` -1..1; the errors are absolute
# differences of the outputs. NaN where the two sides' outputs are of different kinds. `changed`:
# whether the sets of independent classes differ. Of the artefact's probabilities, `uncalibrated`:
# the largest without its temperature, `truth`: that of the true class, NaN without ground truth,
# `sizes`: of its label sets at the coverages SHOWN, 0 where it has no floor.
ROW = np.dtype(
    [
        ("image", "<i8"),
        ("reference", ANSWER),
        ("artefact", ANSWER),
        ("kl", "<f8"),
        ("signal", "<f8"),
        ("noise", "<f8"),
        ("cosine", "<f8"),
        ("max_error", "<f8"),
        ("mean_error", "<f8"),
        ("changed", "?"),
        ("uncalibrated", "<f8"),
        ("truth", "<f8"),
        ("sizes", "<i4", len(SHOWN)),
    ]
)


def check(rows: Rows, labels: int, *, alike: bool) -> None:
    """Raise ValueError for rows that `row` can't have returned.

    `labels`: the number of classes; `alike`: whether both sides have outputs of one kind.
    """
    distances = np.stack([rows[name] for name in DISTANCES])
    numbers = [rows[side][name] for side in SIDES for name in ("confidence", "margin", "entropy")]
    numbers.append(rows["uncalibrated"])
    if not np.isfinite([rows["kl"], *numbers]).all():
        raise ValueError("its numbers are not finite")
    if not (np.isfinite(distances) if alike else np.isnan(distances)).all():
        raise ValueError("its distances are of other outputs")
    for answers in (rows[side] for side in SIDES):
        if not ((answers["top"] >= NONE) & (answers["top"] < labels)).all():
            raise ValueError("its classes are not among the labels")
        if (answers["labels"] < 0).any():
            raise ValueError("it has a negative number of labels")


@dataclass(frozen=True)
class Judged:
    """What an artefact's probabilities are held against: its floors, and the true output."""

    floors: tuple[float, ...] = ()
    truth: int | None = None


def row(
    image: int, reference: "Outputs", artefact: "Outputs", judged: Judged | None = None
) -> Rows:
    """Return one row, [1], of both sides' outputs for an image."""
    probabilities = [head.probabilities(*side) for side in (reference, artefact)]
    outputs, multi_label = (reference[1], artefact[1]), reference[1].multi_label
    changed = False
    if multi_label:
        sets = [head.label_sets(p, o) for p, o in zip(probabilities, outputs, strict=True)]
        answers = list(map(independent, probabilities, outputs, sets, reversed(sets)))
        changed = not np.array_equal(sets[0], sets[1])
    else:
        answers = list(map(answer, probabilities, outputs))
    kl = statistics.kl(*(p[None] for p in probabilities), multi_label=multi_label)
    sure = _confidence(artefact, probabilities[1], judged or Judged())
    return np.array([(image, *answers, kl, *_distances(reference, artefact), changed, *sure)], ROW)


def _confidence(artefact: "Outputs", values: Floats, judged: Judged) -> tuple[Any, ...]:
    """Return the fields of ROW on the artefact's probabilities, float32 [outputs]."""
    outputs, output = artefact
    plain = head.probabilities(outputs, replace(output, temperature=1.0))
    truth = float("nan") if judged.truth is None else float(values[judged.truth])
    sizes = np.zeros(len(SHOWN), np.int32)
    for i, percent in enumerate(shown(judged.floors)):
        sizes[i] = (values >= np.float32(floor_for(percent / 100, judged.floors))).sum()
    return float(plain.max()), truth, sizes


# A model's outputs for one image, float32 [outputs], and their description.
Outputs = tuple[Floats, Output]


def answer(probabilities: Floats, output: Output) -> tuple[Any, ...]:
    """Return the fields of ANSWER for float32 [outputs]."""
    order = descending(probabilities, TOP)
    top = np.full(TOP, NONE)
    top[: len(order)] = order - output.label_offset
    values = probabilities[order].astype(float)
    margin = values[0] - (values[1] if len(values) > 1 else 0.0)
    return top, values[0], margin, entropy(probabilities), 0


def independent(probabilities: Floats, output: Output, own: Flags, other: Flags) -> tuple[Any, ...]:
    """Return the fields of ANSWER for independent classes.

    `own`, `other`: which of them this side and the other side answer, [outputs].
    """
    labels = np.flatnonzero(own)
    order = labels[np.lexsort((-probabilities[labels], other[labels]))][:TOP]
    top = np.full(TOP, NONE)
    top[: len(order)] = order - output.label_offset
    limits = head.limits(output.thresholds, output.label_offset)
    margin = np.abs(probabilities - limits).min()
    spread = mean_binary_entropy(probabilities)
    return top, probabilities.max(), margin, spread, len(labels)


def _distances(reference: Outputs, artefact: Outputs) -> tuple[float, ...]:
    if reference[1].kind != artefact[1].kind:
        return (float("nan"),) * len(DISTANCES)
    a, b = (side[0].astype(np.float64) for side in (reference, artefact))
    error = np.abs(a - b)
    cosine = statistics.cosine(reference[0][None], artefact[0][None])
    return float(a @ a), float(error @ error), cosine, float(error.max()), float(error.mean())


@dataclass(frozen=True)
class Task:
    """Hold what all shards share.

    `folder`: of the images; `reference`: the file with the reference's answers; `digest`: the
    artefact's, so that a changed file is another task. `truth`: the true class of each image of the
    folder, [n], or None.
    """

    artefact: Path
    digest: str
    reference: Path
    folder: Path
    engine: EngineOptions
    # It doesn't change the results, so a journal must not depend on it.
    trust: "Trust | None" = field(default=None, repr=False)
    truth: Indices | None = field(default=None, repr=False, compare=False)

    def open(self) -> Classifier:
        """Load the artefact. Raises ArtefactError, EngineError."""
        classifier = Classifier.of(read_content(self.artefact, trust=self.trust), self.engine)
        if classifier.artefact.digest != self.digest:
            raise ArtefactError(f"{self.artefact}: changed during the measurement; start again")
        return classifier


@dataclass(frozen=True)
class Part:
    """Hold the results of some images: ROW records, [n], and the seconds of each, [n].

    The time is that of the engine, beside threads that decode the next images. It alone varies from
    run to run.
    """

    rows: Rows
    seconds: NDArray[np.float64]
    failed: tuple[Failure, ...] = ()


def measure(task: Task, shard: Shard) -> Part:
    """Run the artefact on a shard's images and compare it with the reference.

    Raises UsageError for a reference of other images, EngineError for an engine that fails.
    """
    rows, seconds, failed = [], [], []
    opened(task)  # once, before threads ask for it
    with quiet(), ahead(partial(_prepared, task), shard.names) as prepared:
        for index, (name, image) in enumerate(prepared, shard.start):
            try:
                measured, elapsed = _measured(task, index, name, image())
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


@dataclass(frozen=True)
class _Image:
    """An image that a thread prepared: its file's digest, and its input tensor or the error."""

    digest: Pixels
    tensor: Array | ImageError


def _prepared(task: Task, name: str) -> _Image:
    """Read and preprocess an image. Raises ImageError where its file can't be read."""
    classifier, reference = opened(task)
    if reference.is_failed(name):
        raise ImageError("unreadable when the reference was recorded")
    content = read_bytes(task.folder / name)
    preprocessor, digest = classifier.preprocessor, content_digest(content)
    try:
        return _Image(digest, preprocessor.tensor(preprocessor.read(content)))
    except ImageError as error:
        return _Image(digest, error)  # another image than the reference's comes first


def _measured(task: Task, index: int, name: str, image: _Image) -> tuple[Rows, float]:
    """Return an image's row and seconds. Raises ImageError."""
    classifier, reference = opened(task)
    expected = reference.outputs(name, image.digest)
    if isinstance(image.tensor, ImageError):
        raise image.tensor
    started = perf_counter()
    outputs = classifier.numbers(classifier.engine.run(image.tensor))
    seconds = perf_counter() - started
    output = classifier.contract.output
    sides = (expected, reference.output(output)), (check_finite(outputs), output)
    return row(index, *sides, _judged(task, classifier, index)), seconds


def _judged(task: Task, classifier: Classifier, index: int) -> Judged:
    offset = classifier.contract.output.label_offset
    truth = None if task.truth is None else int(task.truth[index]) + offset
    return Judged(classifier.classes.floors, truth)


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
