"""Compare artefacts with a reference: read everything, measure each artefact, summarise."""

import hashlib
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kedge_runtime import __version__
from kedge_runtime.arrays import Indices
from kedge_runtime.artefact.contract import Contract, Label
from kedge_runtime.artefact.file import Artefact, read_artefact
from kedge_runtime.drift import journal, report
from kedge_runtime.drift.codecs import PartCodec, shards_of
from kedge_runtime.drift.confidence import confidence_drift
from kedge_runtime.drift.confidence_report import ConfidenceDrift
from kedge_runtime.drift.evidence import Evidence
from kedge_runtime.drift.journal import ImageFolder, Journal
from kedge_runtime.drift.measure import ROW, Part, Task, measure_all
from kedge_runtime.drift.measure import opened as loaded
from kedge_runtime.drift.recording import Sample
from kedge_runtime.drift.reference import SUFFIX, Reference
from kedge_runtime.drift.summary import GateLimits, check_limits, summarise
from kedge_runtime.drift.truth import truth_by
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import LostError, UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.pool import Pool, executor
from kedge_runtime.progress import Bar

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust


@dataclass(frozen=True)
class DriftRequest:
    """Hold what a user asks of `kedge drift`.

    `folder`: of the images; `truth`: auto, none, a scheme of `truth.SCHEMES`, or a file; `out`: the
    report, beside which unfinished work is kept; `pool`: the processes or the cluster to run on;
    `trust`: the signature that every artefact must have.
    """

    artefacts: tuple[Path, ...]
    folder: Path
    truth: str
    limits: GateLimits
    engine: EngineOptions
    out: Path | None = None
    pool: Pool = Pool()
    trust: "Trust | None" = None


@dataclass(frozen=True)
class Comparison:
    """Hold a request whose files were read.

    `truth`: each image's true class as an index of the labels, int64 [n], or None.
    """

    request: DriftRequest
    artefacts: tuple[Artefact, ...]
    images: ImageFolder
    truth: Indices | None

    def sample(self, count: int) -> Sample:
        """Return `count` images at most, evenly spread over the folder."""
        names = self.images.names
        chosen = np.linspace(0, len(names) - 1, min(count, len(names))).astype(np.int64)
        paths = tuple(self.images.folder / names[i] for i in chosen)
        return Sample(paths, None if self.truth is None else self.truth[chosen])


def prepare(request: DriftRequest) -> Comparison:
    """Read artefacts, images and ground truth, before any model runs.

    Raises ArtefactError for an unsealed artefact; UsageError for a model of features, a folder
    without images, unreadable ground truth, and a gate that lacks ground truth.
    """
    artefacts = tuple(_read(path, request.trust) for path in request.artefacts)
    images = ImageFolder.of(request.folder)
    multi_label = any(artefact.contract.output.multi_label for artefact in artefacts)
    if multi_label:
        _refuse_truth(request.truth)
    scheme = "none" if multi_label else request.truth
    truth = _truth(scheme, images, artefacts[0].contract.labels)
    check_limits(request.limits, has_truth=truth is not None, multi_label=multi_label)
    return Comparison(request, artefacts, images, truth)


def compare(comparison: Comparison, path: Path) -> list[report.Drift]:
    """Measure each artefact against the reference at `path`.

    Raises UsageError for a reference of another model.
    """
    reference = Reference(path)
    for artefact in comparison.artefacts:
        reference.check(artefact.contract, artefact.path)
    with executor(comparison.request.pool) as workers:
        return [
            _drift(comparison, reference, number, workers)
            for number in range(len(comparison.artefacts))
        ]


def unfinished_reference(out: Path) -> Path:
    """Return the path of the recorded answers until the report `out` is written."""
    return out.with_name(f".{out.name}.reference{SUFFIX}")


def finish(request: DriftRequest) -> None:
    """Remove the unfinished work after the report is written."""
    if request.out is None:
        return
    reference = unfinished_reference(request.out)
    journals = [_journal_path(request.out, number) for number in range(len(request.artefacts))]
    for path in (*journals, reference, journal.beside(reference)):
        path.unlink(missing_ok=True)


def _read(path: Path, trust: "Trust | None") -> Artefact:
    artefact = read_artefact(path, trust=trust)
    if artefact.contract.output.kind == "features":
        raise UsageError(f"{path}: returns features, but drift compares classes; give a classifier")
    return artefact


def _refuse_truth(scheme: str) -> None:
    """Raise UsageError for ground truth that doesn't compare with sets of classes."""
    if scheme not in ("auto", "none"):
        raise UsageError(
            f"--truth {scheme}: is one class of an image, but the answers are sets of independent "
            "classes; leave it out"
        )


def _truth(scheme: str, images: ImageFolder, labels: tuple[Label, ...]) -> Indices | None:
    paths = [images.folder / name for name in images.names]
    truth = truth_by(scheme, paths, labels)
    return None if truth is None else np.array([truth[path] for path in paths], np.int64)


def _drift(
    comparison: Comparison, reference: Reference, number: int, workers: Executor
) -> report.Drift:
    request, images = comparison.request, comparison.images
    artefact = comparison.artefacts[number]
    labels, output = artefact.contract.labels, artefact.contract.output
    task = _task(request, artefact, reference, comparison.truth)
    codec = PartCodec(shards_of(images), len(labels), output.kind == reference.facts.output.kind)
    path = request.out and _journal_path(request.out, number)
    open_journal = Journal(path, _work(task, images, reference), codec) if path else nullcontext()
    with open_journal as finished:
        part = _measured(task, images, finished, workers)
    evidence = Evidence(images.names, labels, part, comparison.truth, output.multi_label)
    drift = summarise(evidence, _described(task, artefact), request.limits)
    measured = (images.names[i] for i in part.rows["image"])
    marks = artefact.contract.provenance.calibration_images
    return replace(
        drift,
        calibration_images=reference.count_marked(measured, marks),
        confidence=_confidence(evidence, artefact.contract, reference),
    )


def _confidence(
    evidence: Evidence, contract: Contract, reference: Reference
) -> ConfidenceDrift | None:
    """Return what the images say of the artefact's confidence, where `kedge calibrate` set it."""
    if contract.confidence is None:
        return None
    names = (evidence.names[i] for i in evidence.rows["image"])
    used = reference.count_marked(names, contract.confidence.images)
    return confidence_drift(evidence, contract, used)


def _task(
    request: DriftRequest, artefact: Artefact, reference: Reference, truth: Indices | None
) -> Task:
    """Return a task that is the same in another working folder and with other cores."""
    return Task(
        artefact=artefact.path.absolute(),
        digest=artefact.digest,
        reference=reference.path.absolute(),
        folder=request.folder.absolute(),
        engine=replace(request.engine, threads=request.engine.thread_count),
        trust=request.trust,
        truth=truth,
    )


def _measured(
    task: Task, images: ImageFolder, finished: Journal[Part] | None, workers: Executor
) -> Part:
    name = task.artefact.name
    with Bar(name, len(images.names)) as bar:
        try:
            return measure_all(task, images, bar, finished, workers)
        except LostError as error:
            raise LostError(f"{name}: {error}") from None


def _work(task: Task, images: ImageFolder, reference: Reference) -> str:
    """Return a digest of everything that changes the results."""
    truth = None if task.truth is None else hashlib.sha256(task.truth.tobytes()).hexdigest()
    work = (__version__, ROW.descr, task, reference.digest, images.fingerprint(), truth)
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
        threads=task.engine.thread_count,
        delegate=task.engine.delegate,
        bytes=size,
        ratio=size / (4 * provenance.parameters) if provenance.parameters else None,
    )
