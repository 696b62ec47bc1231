"""Record the float model's answers, and find where artefacts of it lose accuracy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kedge_convert.drift.layer_show import svg
from kedge_convert.drift.layers import Localisation, by_layer
from kedge_convert.load import registry
from kedge_convert.load.request import SourceRequest
from kedge_convert.sealing import tool_versions
from kedge_convert.source import Source, load_source
from kedge_runtime.artefact.contract import Contract, Input
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.drift import recording
from kedge_runtime.drift.journal import Pictures
from kedge_runtime.drift.recording import Original, Recorder, Sample
from kedge_runtime.drift.reference import ReferenceFacts
from kedge_runtime.errors import UsageError
from kedge_runtime.files import temporary_folder, write_whole
from kedge_runtime.image.decode import is_readable
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.pipelines import normalisation_name
from kedge_runtime.image.preprocessing import Preprocessor
from kedge_runtime.output import quiet
from kedge_runtime.progress import Bar


def record(original: Original, pictures: Pictures, path: Path) -> None:
    """Write the original's answers to `path`, unless it has them already.

    What was done before a run was stopped isn't done again. Raises UsageError for a model that the
    artefact wasn't made from, and when the file can't be written.
    """
    contract = original.artefact.contract
    source = load_original(original)
    facts = replace(ReferenceFacts.of(contract), tools=tool_versions())
    recording.write(path, facts, pictures, Recorder(Preprocessor(source.input), source.logits))


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


def _request(original: Original, folder: Path) -> SourceRequest:
    """Return what `kedge convert` was asked; what its user said of a file, the contract knows."""
    if not registry.is_path(original.model):
        return SourceRequest(original.model, weights=original.weights)
    contract = original.artefact.contract
    labels = folder / "labels.tsv"
    lines = (f"{label.id}\t{label.name}\n" for label in contract.labels)
    labels.write_text("".join(lines), encoding="utf-8")
    geometry = contract.input.geometry
    return SourceRequest(
        original.model,
        weights=original.weights,
        card=contract.provenance.card or None,
        pixels=InputOptions("imagenet", _mode(contract)),
        labels=str(labels),
        head=contract.provenance.head,
        output=contract.provenance.output or None,
        signature=contract.provenance.signature or None,
        size=f"{geometry.height}x{geometry.width}",
    )


def _mode(contract: Contract) -> str:
    """Return any name of the contract's normalisation; it is put in the model's place later."""
    return normalisation_name(contract.input.normalisation) or "raw"


def localised(
    original: Original, artefacts: Sequence[Artefact], sample: Sample
) -> list[Localisation]:
    """Return every artefact's layers, worst first; pictures that can't be read are left out.

    Raises UsageError when no picture can be read, or for an artefact of another original.
    """
    source = load_original(original)
    pictures = [picture for picture in sample.pictures if is_readable(picture)]
    found = []
    for artefact in artefacts:
        with Bar(f"layers of {artefact.path.name}", len(pictures)) as bar, quiet():
            found.append(by_layer(artefact.path, source, pictures, bar.advance))
    return found


def draw(found: Sequence[Localisation], report: Path) -> None:
    """Write a picture of each beside the report: REPORT.ARTEFACT.svg."""
    for each in found:
        place = report.with_name(f"{report.stem}.{each.artefact}.svg")
        write_whole(place, svg(each).encode())
