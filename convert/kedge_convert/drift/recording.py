"""Record the float model's answers, and measure the layers of its artefacts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kedge_convert.contract_builder import tool_versions
from kedge_convert.drift.layer_show import svg, table
from kedge_convert.drift.layers import Localisation, by_layer, plain
from kedge_convert.load import registry
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import Source, load_source
from kedge_runtime.artefact.contract import Contract, Input
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.drift import recording
from kedge_runtime.drift.journal import ImageFolder
from kedge_runtime.drift.recording import Against, LayerFindings, Recorder, Sample
from kedge_runtime.drift.reference import ReferenceFacts
from kedge_runtime.errors import UsageError
from kedge_runtime.files import temporary_folder
from kedge_runtime.image.decode import is_readable
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.pipelines import normalisation_name
from kedge_runtime.image.preprocessing import Preprocessor
from kedge_runtime.output import quiet
from kedge_runtime.progress import Bar


def record(against: Against, images: ImageFolder, path: Path) -> None:
    """Write the float model's answers to `path`, unless they are there already.

    An interrupted run resumes. Raises UsageError for a model that isn't the artefact's, and when
    the file can't be written.
    """
    contract = against.artefact.contract
    source = load_float_model(against)
    facts = replace(ReferenceFacts.of(contract), tools=tool_versions())
    recording.write(path, facts, images, Recorder(Preprocessor(source.input), source.logits))


def load_float_model(against: Against) -> Source:
    """Load the float model of an artefact, with the preprocessing of the artefact's contract.

    Raises UsageError for a model with other weights.
    """
    contract = against.artefact.contract
    with temporary_folder() as folder:
        source = load_source(_request(against, folder))
    if source.weights_digest != contract.provenance.weights_digest:
        raise UsageError(
            f"--against: {against.model}: its weights differ from those of "
            f"{against.artefact.path}; give {contract.provenance.source}"
        )
    return replace(source, input=Input(contract.input.geometry, contract.input.normalisation))


def _request(against: Against, folder: Path) -> SourceRequest:
    """Return the request to load a model; the contract has the options of its conversion."""
    if not registry.is_path(against.model):
        return SourceRequest(against.model, weights=against.weights)
    contract = against.artefact.contract
    labels = folder / "labels.tsv"
    lines = (f"{label.id}\t{label.name}\n" for label in contract.labels)
    labels.write_text("".join(lines), encoding="utf-8")
    geometry = contract.input.geometry
    return SourceRequest(
        against.model,
        weights=against.weights,
        card=contract.provenance.card or None,
        pixels=InputOptions("imagenet", _mode(contract)),
        labels=str(labels),
        head=contract.provenance.head,
        output=contract.provenance.output or None,
        signature=contract.provenance.signature or None,
        size=f"{geometry.height}x{geometry.width}",
    )


def _mode(contract: Contract) -> str:
    """Return any name of a normalisation; `load_float_model` replaces it by the contract's."""
    return normalisation_name(contract.input.normalisation) or "raw"


def localise(
    against: Against, artefacts: Sequence[Artefact], sample: Sample
) -> list[LayerFindings]:
    """Return the drift of each artefact's layers, ready to show; unreadable images are skipped.

    Raises UsageError when no image can be read, or for an artefact of another model.
    """
    found = measure_layers(against, artefacts, sample)
    return [LayerFindings(each.artefact, plain(each), table(each), svg(each)) for each in found]


def measure_layers(
    against: Against, artefacts: Sequence[Artefact], sample: Sample
) -> list[Localisation]:
    """Return each artefact's layers, the worst first. Raises UsageError as `localise` does."""
    source = load_float_model(against)
    images = [image for image in sample.images if is_readable(image)]
    found = []
    for artefact in artefacts:
        with Bar(f"layers of {artefact.path.name}", len(images)) as bar, quiet():
            found.append(by_layer(artefact.path, source, images, bar.advance))
    return found
