"""The float original's answers to pictures, fed as its artefacts are, written to a reference."""

from dataclasses import replace
from pathlib import Path

from kedge_convert import sources
from kedge_convert.sealing import tool_versions
from kedge_convert.source import Request, Source, load_source
from kedge_runtime.contract import Contract, Input
from kedge_runtime.drift import recording
from kedge_runtime.drift.original import Original
from kedge_runtime.drift.pictures import Pictures
from kedge_runtime.drift.recording import Answering
from kedge_runtime.drift.reference import Facts
from kedge_runtime.errors import UsageError
from kedge_runtime.files import temporary_folder
from kedge_runtime.normalisations import name_of
from kedge_runtime.pixels import PixelWords
from kedge_runtime.preprocessing import Preprocessor


def record(original: Original, pictures: Pictures, path: Path) -> None:
    """Write the original's answers to `path`, unless it has them already.

    What was done before a run was stopped isn't done again. Raises UsageError for a model that the
    artefact wasn't made from, and when the file can't be written.
    """
    contract = original.artefact.contract
    source = load_original(original)
    facts = replace(Facts.of(contract), tools=tool_versions())
    recording.write(path, facts, pictures, Answering(Preprocessor(source.input), source.logits))


def load_original(original: Original) -> Source:
    """Return the model that an artefact was made from, fed as the artefact's contract says.

    Raises UsageError for another model: its weights tell.
    """
    contract = original.artefact.contract
    with temporary_folder() as folder:
        source = load_source(_request(original, folder))
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
        output=contract.provenance.output or None,
        signature=contract.provenance.signature or None,
        size=f"{geometry.height}x{geometry.width}",
    )


def _mode(contract: Contract) -> str:
    """Return any name of the contract's normalisation; it is put in the model's place later."""
    return name_of(contract.input.normalisation) or "raw"
