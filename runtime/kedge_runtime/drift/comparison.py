"""The comparison as a story: the reference, the true classes, each artefact against them."""

import hashlib
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kedge_runtime import __version__
from kedge_runtime.arrays import Indices
from kedge_runtime.artefact.contract import Label
from kedge_runtime.artefact.file import Artefact, read_artefact
from kedge_runtime.drift import journal, report
from kedge_runtime.drift.journal import Journal, Pictures
from kedge_runtime.drift.measure import Evidence, Part, Task, measure_all
from kedge_runtime.drift.measure import opened as loaded
from kedge_runtime.drift.recording import Parts, Sample, shards_of
from kedge_runtime.drift.reference import SUFFIX, Reference
from kedge_runtime.drift.rows import ROW
from kedge_runtime.drift.summary import GateLimits, check_limits, summarise
from kedge_runtime.drift.truth import truth_by
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import LostError, UsageError
from kedge_runtime.pool.executors import Pool, executor
from kedge_runtime.progress import Bar

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class DriftRequest:
    """What the user asks. `labels`: auto, none, a scheme of `truth.SCHEMES`, or a file.

    `out`: where the report goes; unfinished work is kept beside it. `pool`: where it is done.
    `trust`: the signature that is demanded of every artefact.
    """

    artefacts: tuple[Path, ...]
    images: Path
    labels: str
    limits: GateLimits
    options: EngineOptions
    out: Path | None = None
    pool: Pool = Pool()
    trust: "Trust | None" = None


@dataclass(frozen=True)
class Comparison:
    """A request whose files are there. `truth`: each picture's class, int64 [n], or None."""

    request: DriftRequest
    artefacts: tuple[Artefact, ...]
    pictures: Pictures
    truth: Indices | None

    def sample(self, count: int) -> Sample:
        """Return `count` pictures, or all if there are fewer, evenly spread over the folder."""
        names = self.pictures.names
        chosen = np.linspace(0, len(names) - 1, min(count, len(names))).astype(np.int64)
        paths = tuple(self.pictures.folder / names[i] for i in chosen)
        return Sample(paths, None if self.truth is None else self.truth[chosen])


def prepare(request: DriftRequest) -> Comparison:
    """Find everything that is asked for, before any model runs.

    Raises ArtefactError for an artefact that isn't sealed; UsageError for a model of features, a
    folder without pictures, labels that can't be read, and a gate that needs some.
    """
    artefacts = tuple(_read(path, request.trust) for path in request.artefacts)
    pictures = Pictures.of(request.images)
    multi_label = any(artefact.contract.output.multi_label for artefact in artefacts)
    if multi_label:
        _refuse_labels(request)
    how = "none" if multi_label else request.labels
    truth = _truth(how, pictures, artefacts[0].contract.labels)
    check_limits(request.limits, labelled=truth is not None, multi_label=multi_label)
    return Comparison(request, artefacts, pictures, truth)


def compare(comparison: Comparison, reference: Path) -> list[report.Drift]:
    """Return each artefact's drift. Raises UsageError for a reference of anything else."""
    known = Reference(reference)
    for artefact in comparison.artefacts:
        known.check(artefact.contract, artefact.path)
    with executor(comparison.request.pool) as workers:
        return [
            _drift(comparison, known, number, workers)
            for number in range(len(comparison.artefacts))
        ]


def unfinished_reference(out: Path) -> Path:
    """Return where the original's answers lie until the report `out` is written."""
    return out.with_name(f".{out.name}.reference{SUFFIX}")


def finish(request: DriftRequest) -> None:
    """Remove what a rerun would have gone on from: the report is written."""
    if request.out is None:
        return
    reference = unfinished_reference(request.out)
    journals = [_journal_path(request.out, number) for number in range(len(request.artefacts))]
    for path in (*journals, reference, journal.beside(reference)):
        path.unlink(missing_ok=True)


def _read(path: Path, trust: "Trust | None") -> Artefact:
    artefact = read_artefact(path, trust=trust)
    if artefact.contract.output.kind == "features":
        raise UsageError(f"{path}: gives features, not classes: there are no answers to compare")
    return artefact


def _refuse_labels(request: DriftRequest) -> None:
    """Raise UsageError where labels are asked for that can't be held against the answers."""
    if request.labels not in ("auto", "none"):
        raise UsageError(
            f"--truth {request.labels}: tells one class of a picture, and the answers are sets of "
            "independent ones: leave it out"
        )


def _truth(labels: str, pictures: Pictures, classes: tuple[Label, ...]) -> Indices | None:
    paths = [pictures.folder / name for name in pictures.names]
    found = truth_by(labels, paths, classes)
    return None if found is None else np.array([found[path] for path in paths], np.int64)


def _drift(
    comparison: Comparison, known: Reference, number: int, workers: Executor
) -> report.Drift:
    request, pictures = comparison.request, comparison.pictures
    artefact = comparison.artefacts[number]
    task = _task(artefact, known, pictures, request)
    path = request.out and _journal_path(request.out, number)
    form = Parts(
        shards_of(pictures),
        len(artefact.contract.labels),
        alike=artefact.contract.output.kind == known.facts.output.kind,
    )
    noted = Journal(path, _work(task, pictures, known), form) if path else nullcontext()
    with noted as notes:
        part = _measured(task, pictures, notes, workers)
    labels, several = artefact.contract.labels, artefact.contract.output.multi_label
    evidence = Evidence(pictures.names, labels, part, comparison.truth, several)
    return summarise(evidence, _described(task, artefact), request.limits)


def _task(artefact: Artefact, known: Reference, pictures: Pictures, request: DriftRequest) -> Task:
    """Return the task so that it is the same one elsewhere: other folder, other number of cores."""
    places = (path.absolute() for path in (artefact.path, known.path, pictures.folder))
    path, reference, folder = places
    options = replace(request.options, threads=request.options.thread_count)
    return Task(path, artefact.digest, reference, folder, options, request.trust)


def _measured(
    task: Task, pictures: Pictures, notes: Journal[Part] | None, workers: Executor
) -> Part:
    name = task.artefact.name
    with Bar(name, len(pictures.names)) as bar:
        try:
            return measure_all(task, pictures, bar, notes, workers)
        except LostError as error:
            raise LostError(f"{name}: {error}") from None


def _work(task: Task, pictures: Pictures, known: Reference) -> str:
    """Return a digest of all that has a part in the results."""
    work = (__version__, ROW.descr, task, known.digest, pictures.fingerprint())
    return hashlib.sha256(repr(work).encode()).hexdigest()


def _journal_path(out: Path, number: int) -> Path:
    return journal.beside(out.with_name(f"{out.name}.{number}"))


def _described(task: Task, artefact: Artefact) -> report.ArtefactDrift:
    classifier, _ = loaded(task)
    provenance, size = artefact.contract.provenance, artefact.path.stat().st_size
    return report.ArtefactDrift(
        path=str(artefact.path),
        digest=artefact.digest,
        target=provenance.target,
        precision=provenance.precision,
        engine=classifier.engine.name,
        library=classifier.engine.library,
        threads=task.options.thread_count,
        delegate=task.options.delegate,
        bytes=size,
        ratio=size / (4 * provenance.parameters) if provenance.parameters else None,
    )
