"""Answers to pictures written to a reference: the float original's, or another artefact's."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.artefact import Artefact
from kedge_runtime.classifier import Classifier
from kedge_runtime.content import ModelContent
from kedge_runtime.contract import Tensor
from kedge_runtime.drift import journal
from kedge_runtime.drift.journal import Journal
from kedge_runtime.drift.noted import Answered, Answers, shards_of
from kedge_runtime.drift.pictures import Failure, Pictures, Shard, content_digest
from kedge_runtime.drift.reference import Facts, Recorded, Reference, write_reference
from kedge_runtime.engines import EngineOptions
from kedge_runtime.errors import ImageError, KedgeError, UsageError
from kedge_runtime.head import Floats, check_finite
from kedge_runtime.identity import identity
from kedge_runtime.image import read_bytes
from kedge_runtime.preprocessing import Preprocessor
from kedge_runtime.progress import Bar
from kedge_runtime.quiet import quiet


@dataclass(frozen=True)
class Answering:
    """What answers: how it is fed, and its numbers for input tensors, float32 [n, classes].

    `name` heads the bar of progress.
    """

    plan: Preprocessor
    answer: Callable[[Iterator[NDArray[Any]]], Floats]
    name: str = "float original"


def write(path: Path, facts: Facts, pictures: Pictures, answering: Answering) -> None:
    """Write the answers to `path`, unless it has them already.

    What was done before a run was stopped isn't done again. Raises UsageError when the file can't
    be written.
    """
    facts = replace(facts, work=_work(facts, pictures))
    if _is_done(path, facts.work):
        return
    form = Answered(shards_of(pictures))
    with Journal(journal.beside(path), facts.work, form) as notes:
        _ask(answering, pictures, notes)
        failed = [failure for _, answers in notes.entries() for failure in answers.failed]
        known = replace(facts, failed=tuple(sorted(failed, key=lambda failure: failure.image)))
        write_reference(path, known, lambda: _recorded(notes))
        notes.remove()


def record_artefact(
    original: ModelContent, compared: Artefact, pictures: Pictures, path: Path
) -> None:
    """Write an artefact's answers to `path`, fed as its own contract says.

    Raises UsageError where `compared` has other labels, and for a model of features.
    """
    with quiet():
        classifier = Classifier.of(original, EngineOptions())
    contract = classifier.contract
    classifier.check_answers()
    if [each.name for each in contract.labels] != [each.name for each in compared.contract.labels]:
        raise UsageError(
            f"--against: {original.path}: its labels are not those of {compared.path}; "
            "`kedge seal --reseal --labels FILE` replaces them"
        )
    facts = replace(
        Facts.of(contract),
        source=f"{original.path.name} {classifier.artefact.digest}",
        weights_digest="",
        output=replace(contract.output, tensor=Tensor()),
        tools=identity()["packages"],
    )

    def answer(tensors: Iterator[NDArray[Any]]) -> Floats:
        rows = (classifier.numbers(classifier.engine.run(tensor)) for tensor in tensors)
        return np.stack(list(rows))

    write(path, facts, pictures, Answering(classifier.preprocessor, answer, original.path.name))


def _work(facts: Facts, pictures: Pictures) -> str:
    """Return a digest of all that has a part in a reference."""
    return hashlib.sha256(f"{facts}{pictures.fingerprint()}".encode()).hexdigest()


def _is_done(path: Path, work: str) -> bool:
    try:
        return Reference(path).facts.work == work
    except KedgeError:
        return False


def _ask(answering: Answering, pictures: Pictures, notes: Journal[Answers]) -> None:
    """Note the original's answers to the shards that aren't there yet."""
    known = {shard for shard, _ in notes.entries()}
    with Bar(answering.name, len(pictures.names)) as bar:
        for shard in pictures.shards():
            if shard.index in known:
                bar.skip(len(shard.names))
                continue
            notes.add(shard.index, _answers(answering, pictures.folder, shard))
            bar.advance(len(shard.names))


def _answers(answering: Answering, folder: Path, shard: Shard) -> Answers:
    plan = answering.plan
    names, digests, tensors, failed = [], [], [], list[Failure]()
    with quiet():
        for name in shard.names:
            try:
                content = read_bytes(folder / name)
                tensors.append(plan.tensor(plan.read(content)))
            except ImageError as error:
                failed.append(Failure(name, str(error)))
                continue
            names.append(name)
            digests.append(content_digest(content))
        outputs = answering.answer(iter(tensors)) if tensors else np.empty((0, 0), np.float32)
    recorded = Recorded(names, np.array(digests, np.uint8), check_finite(outputs))
    return Answers(recorded, tuple(failed))


def _recorded(notes: Journal[Answers]) -> Iterator[Recorded]:
    return (answers.recorded for _, answers in notes.entries() if answers.recorded.names)
