"""Record answers to images in a reference: the float model's, or another artefact's."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Doubles, Floats, Indices
from kedge_runtime.artefact.containers import FORMATS
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Tensor
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.outputs import check_finite
from kedge_runtime.drift import journal, rows
from kedge_runtime.drift.journal import (
    DIGEST_BYTES,
    Entry,
    Failure,
    Journal,
    Pictures,
    Shard,
    content_digest,
    packed,
    unpacked,
)
from kedge_runtime.drift.measure import Part
from kedge_runtime.drift.reference import (
    SUFFIX,
    Recorded,
    Reference,
    ReferenceFacts,
    write_reference,
)
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ImageError, KedgeError, UsageError
from kedge_runtime.identity import identity
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.image.preprocessing import Preprocessor
from kedge_runtime.output import quiet
from kedge_runtime.progress import Bar
from kedge_runtime.records import decode

# By name, like the commands: a device compares with a reference and never imports the converter.
CONVERTER = "kedge_convert.drift.hooks"


@dataclass(frozen=True)
class Original:
    """What the user calls the original, and an artefact made from it, which says how it was fed.

    `model`: a card's name, demo, a model's file, or another artefact. `weights`: for a card,
    imagenet or a file.
    """

    model: str
    weights: str
    artefact: Artefact

    @property
    def is_recorded(self) -> bool:
        """Whether it is a reference, and no model."""
        return is_reference(self.model)


@dataclass(frozen=True)
class Sample:
    """Pictures, and the true class of each as an index of the labels, int64 [n], or None."""

    pictures: tuple[Path, ...]
    truth: Indices | None


def is_reference(name: str) -> bool:
    """Whether what the user calls the original is a reference by its name, in any case."""
    return name.lower().endswith(SUFFIX)


def is_artefact(name: str) -> bool:
    """Whether what the user calls the original is another artefact, by its name."""
    return Path(name).suffix.lower().lstrip(".") in FORMATS


def converter() -> Any:
    """Return the converter's half of drift: `record` and `attribute`."""
    return import_module(CONVERTER)


Failed = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Measured:
    """A `Part`, its arrays as text; `failed`: the names of images and why."""

    rows: str
    seconds: str
    failed: Failed


@dataclass(frozen=True)
class Recording:
    """A `Recorded`, its arrays as text; `failed`: the names of images and why."""

    names: tuple[str, ...]
    digests: str
    outputs: str
    failed: Failed


def shards_of(pictures: Pictures) -> dict[int, Shard]:
    """Return the shards that are asked for, by their index."""
    return {shard.index: shard for shard in pictures.shards()}


@dataclass(frozen=True)
class Parts:
    """The form of measured shards (journal.Form).

    `labels`: how many classes there are; `alike`: whether both sides' outputs are of one kind, and
    so have a distance.
    """

    shards: dict[int, Shard]
    labels: int
    alike: bool

    def write(self, part: Part) -> Entry:
        """Return a part as plain data."""
        failed = [[failure.image, failure.error] for failure in part.failed]
        return {"rows": packed(part.rows), "seconds": packed(part.seconds), "failed": failed}

    def read(self, index: int, entry: object) -> Part:
        """Return a shard's part. Raises ContractError or ValueError for one that can't be its."""
        noted = decode(Measured, entry, "shard")
        shard = _asked(self.shards, index)
        part = Part(
            unpacked(noted.rows, rows.ROW), unpacked(noted.seconds, float), _failures(noted.failed)
        )
        failed = [shard.start + shard.names.index(failure.image) for failure in part.failed]
        indices = range(shard.start, shard.start + len(shard.names))
        _once([*part.rows["picture"].tolist(), *failed], indices)
        rows.check(part.rows, self.labels, alike=self.alike)
        if len(part.seconds) != len(part.rows) or not _is_time(part.seconds):
            raise ValueError("its times are not those of its images")
        return part


def _is_time(seconds: Doubles) -> bool:
    return bool((np.isfinite(seconds) & (seconds >= 0)).all())


@dataclass(frozen=True)
class Answers:
    """The original's answers to a shard, and the images that couldn't be read."""

    recorded: Recorded
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Answered:
    """The form of recorded shards (journal.Form)."""

    shards: dict[int, Shard]

    def write(self, answers: Answers) -> Entry:
        """Return answers as plain data."""
        recorded = answers.recorded
        return {
            "names": list(recorded.names),
            "digests": packed(recorded.digests),
            "outputs": packed(recorded.outputs),
            "failed": [[failure.image, failure.error] for failure in answers.failed],
        }

    def read(self, index: int, entry: object) -> Answers:
        """Return a shard's answers. Raises ContractError or ValueError for what can't be its."""
        noted = decode(Recording, entry, "shard")
        failed = _failures(noted.failed)
        shard = _asked(self.shards, index)
        _once([*noted.names, *(failure.image for failure in failed)], shard.names)
        count = len(noted.names)
        digests = unpacked(noted.digests, np.uint8).reshape(count, DIGEST_BYTES)
        outputs = unpacked(noted.outputs, "<f4")
        outputs = outputs.reshape(count, len(outputs) // max(count, 1))
        if bool(outputs.size) != bool(count) or not np.isfinite(outputs).all():
            raise ValueError("its outputs are not those of its images")
        return Answers(Recorded(noted.names, digests, outputs), failed)


def _asked(shards: dict[int, Shard], index: int) -> Shard:
    if index not in shards:
        raise ValueError("a shard that isn't asked for")
    return shards[index]


def _failures(failed: Failed) -> tuple[Failure, ...]:
    return tuple(Failure(*words) for words in failed)


def _once(found: Iterable[object], asked: Iterable[object]) -> None:
    """Raise ValueError unless each that is asked for is there, and there once."""
    if sorted(map(str, found)) != sorted(map(str, asked)):
        raise ValueError("its images are not those of the shard")


@dataclass(frozen=True)
class Recorder:
    """What answers: how it is fed, and its numbers for input tensors, float32 [n, classes].

    `name` heads the bar of progress.
    """

    plan: Preprocessor
    answer: Callable[[Iterator[NDArray[Any]]], Floats]
    name: str = "float original"


def write(path: Path, facts: ReferenceFacts, pictures: Pictures, answering: Recorder) -> None:
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
        ReferenceFacts.of(contract),
        source=f"{original.path.name} {classifier.artefact.digest}",
        weights_digest="",
        output=replace(contract.output, tensor=Tensor()),
        tools=identity()["packages"],
    )

    def answer(tensors: Iterator[NDArray[Any]]) -> Floats:
        rows = (classifier.numbers(classifier.engine.run(tensor)) for tensor in tensors)
        return np.stack(list(rows))

    write(path, facts, pictures, Recorder(classifier.preprocessor, answer, original.path.name))


def _work(facts: ReferenceFacts, pictures: Pictures) -> str:
    """Return a digest of all that has a part in a reference."""
    return hashlib.sha256(f"{facts}{pictures.fingerprint()}".encode()).hexdigest()


def _is_done(path: Path, work: str) -> bool:
    try:
        return Reference(path).facts.work == work
    except KedgeError:
        return False


def _ask(answering: Recorder, pictures: Pictures, notes: Journal[Answers]) -> None:
    """Note the original's answers to the shards that aren't there yet."""
    known = {shard for shard, _ in notes.entries()}
    with Bar(answering.name, len(pictures.names)) as bar:
        for shard in pictures.shards():
            if shard.index in known:
                bar.skip(len(shard.names))
                continue
            notes.add(shard.index, _answers(answering, pictures.folder, shard))
            bar.advance(len(shard.names))


def _answers(answering: Recorder, folder: Path, shard: Shard) -> Answers:
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
