"""The float original's answers to pictures, fed as its artefacts are, written to a reference."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from kedge_convert import sources
from kedge_convert.sealing import tool_versions
from kedge_convert.source import Request, Source, load_source
from kedge_convert.toolkit import quiet
from kedge_runtime.contract import Contract, Input
from kedge_runtime.drift import journal
from kedge_runtime.drift.journal import Entry, Journal, packed, unpacked
from kedge_runtime.drift.original import Original
from kedge_runtime.drift.pictures import Failure, Pictures, Shard, content_digest
from kedge_runtime.drift.reference import Facts, Recorded, Reference, write_reference
from kedge_runtime.errors import ImageError, KedgeError, UsageError
from kedge_runtime.image import read_bytes
from kedge_runtime.normalisations import name_of
from kedge_runtime.pixels import PixelWords
from kedge_runtime.preprocessing import Preprocessor
from kedge_runtime.progress import Bar


def record(original: Original, pictures: Pictures, path: Path) -> None:
    """Write the original's answers to `path`, unless it has them already.

    What was done before a run was stopped isn't done again. Raises UsageError for a model that the
    artefact wasn't made from, and when the file can't be written.
    """
    contract = original.artefact.contract
    source = load_original(original)
    facts = replace(Facts.of(contract), tools=tool_versions())
    facts = replace(facts, work=_work(facts, pictures))
    if _is_done(path, facts.work):
        return
    with Journal(journal.beside(path), facts.work) as notes:
        _ask(source, pictures, notes)
        failed = [Failure(*words) for _, entry in notes.entries() for words in entry["failed"]]
        known = replace(facts, failed=tuple(sorted(failed, key=lambda failure: failure.image)))
        write_reference(path, known, lambda: _recorded(notes))
        notes.remove()


def load_original(original: Original) -> Source:
    """Return the model that an artefact was made from, fed as the artefact's contract says.

    Raises UsageError for another model: its weights tell.
    """
    contract = original.artefact.contract
    with tempfile.TemporaryDirectory(prefix="kedge-") as folder:
        source = load_source(_request(original, Path(folder)))
    if source.weights_digest != contract.provenance.weights_digest:
        raise UsageError(
            f"--against: {original.model}: isn't the model that {original.artefact.path} was made "
            f"from ({contract.provenance.source}): its weights are others"
        )
    fed = Input(contract.input.geometry, contract.input.normalisation)
    return replace(source, input=fed)


def _request(original: Original, folder: Path) -> Request:
    """Return what `kedge convert` was asked; what its user said of a file, the contract knows."""
    if not sources.is_path(original.model):
        return Request(original.model, weights=original.weights)
    contract = original.artefact.contract
    labels = folder / "labels.tsv"
    lines = (f"{label.id}\t{label.name}\n" for label in contract.labels)
    labels.write_text("".join(lines), encoding="utf-8")
    geometry = contract.input.geometry
    return Request(
        original.model,
        weights=original.weights,
        card=contract.provenance.card or None,
        pixels=PixelWords("imagenet", _mode(contract)),
        labels=str(labels),
        head=contract.provenance.head,
        size=f"{geometry.height}x{geometry.width}",
    )


def _mode(contract: Contract) -> str:
    """Return any name of the contract's normalisation; it is put in the model's place later."""
    return name_of(contract.input.normalisation) or "raw"


def _work(facts: Facts, pictures: Pictures) -> str:
    """Return a digest of all that has a part in a reference."""
    return hashlib.sha256(f"{facts}{pictures.fingerprint()}".encode()).hexdigest()


def _is_done(path: Path, work: str) -> bool:
    try:
        return Reference(path).facts.work == work
    except KedgeError:
        return False


def _ask(source: Source, pictures: Pictures, notes: Journal) -> None:
    """Note the original's answers to the shards that aren't there yet."""
    plan = Preprocessor(source.input)
    known = {shard for shard, _ in notes.entries()}
    with Bar("float original", len(pictures.names)) as bar:
        for shard in pictures.shards():
            if shard.index in known:
                bar.skip(len(shard.names))
                continue
            notes.add(shard.index, _answers(source, plan, pictures.folder, shard))
            bar.advance(len(shard.names))


def _answers(source: Source, plan: Preprocessor, folder: Path, shard: Shard) -> Entry:
    names, digests, tensors, failed = [], [], [], []
    with quiet():
        for name in shard.names:
            try:
                content = read_bytes(folder / name)
                tensors.append(plan.tensor(plan.read(content)))
            except ImageError as error:
                failed.append([name, str(error)])
                continue
            names.append(name)
            digests.append(content_digest(content))
        outputs = source.logits(iter(tensors)) if tensors else np.empty((0, 0), np.float32)
    return {
        "names": names,
        "digests": packed(np.array(digests, np.uint8)),
        "outputs": packed(outputs),
        "failed": failed,
    }


def _recorded(notes: Journal) -> Iterator[Recorded]:
    for _, entry in notes.entries():
        if count := len(entry["names"]):
            digests = unpacked(entry["digests"], np.uint8).reshape(count, -1)
            outputs = unpacked(entry["outputs"], np.float32).reshape(count, -1)
            yield Recorded(entry["names"], digests, outputs)
