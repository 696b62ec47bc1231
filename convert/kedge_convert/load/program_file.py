"""Load float .tflite files: kedge's own artefacts, and those of other programs.

A file of kedge's own brings its contract: input, labels and output type. Of others the metadata may
state the normalisation and the labels. The rest is asked for, as for any model.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kedge_convert.load.finite_weights import refuse_weights
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.program import proof
from kedge_convert.program.calls import OperatorImportError
from kedge_convert.program.importing import imported
from kedge_convert.program.reading import read_file
from kedge_convert.toolkit import require
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract, Input, Label
from kedge_runtime.artefact.file import artefact_of, ends_in_digest
from kedge_runtime.artefact.foreign import has_archive, member_text, metadata_of
from kedge_runtime.artefact.labels import parse
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image.pipelines import PIPELINES, Pipeline
from kedge_runtime.modelfile.check.check import check_model
from kedge_runtime.modelfile.network import Network, read_network
from kedge_runtime.modelfile.report import precision_of
from kedge_runtime.output import quiet

MAGIC = slice(4, 8), b"TFL3"  # schema.fbs: file_identifier
# Without any kernel the precision is unknown; what a compiler wrote has an operator of its own.
FLOATS = ("float32", "float16", "unknown")
# Output types whose activation an artefact leaves to the device.
_WITH_ACTIVATION = ("softmax", "sigmoid")


def holds(path: Path) -> bool:
    """Whether a path is a TFLite file, by its identifier."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(8)
    place, identifier = MAGIC
    return start[place] == identifier


def check(request: SourceRequest) -> None:
    """Raise UsageError for a quantised file, ArtefactError for one that may crash an engine."""
    _checked(request)


def load(request: SourceRequest) -> LoadedModel:
    """Load a float TFLite file. Raises UsageError where its import isn't the same function."""
    content, path = _checked(request), Path(request.model)
    try:
        with quiet():
            model = imported(read_file(content), "program")
    except OperatorImportError as error:
        raise UsageError(
            f"kedge can't import its operator {error}: give the model that it was made from"
        ) from error
    refuse_weights(model)
    shape = model.inputs[0].shape[1:]
    if len(model.outputs) == 1 and not proof.is_same_on_noise(content, model, shape):
        raise UsageError(
            "its import answers otherwise than LiteRT does: give the model that it was made from"
        )
    if ends_in_digest(content.data):
        return of_contract(path, model, artefact_of(content).contract)
    return LoadedModel(path.stem, model, _facts(content))


def _checked(request: SourceRequest) -> ModelContent:
    content = read_content(Path(request.model), "tflite")
    check_model(content)
    network = read_network(content)
    refuse_integers(network)
    if len(network.inputs) != 1:
        raise UsageError(f"no image classifier: it has {counted(len(network.inputs), 'input')}")
    return content


def refuse_integers(network: Network) -> None:
    """Raise UsageError for a quantised file."""
    precision = precision_of(network)
    if precision not in FLOATS:
        raise UsageError(
            f"its weights are {precision}; kedge converts float32 and float16 files: give the "
            "float file that it was made from"
        )


def of_contract(path: Path, model: Any, contract: Contract) -> LoadedModel:
    """Return an artefact's model, its output activation put back, with its contract's facts."""
    output, head = contract.output, contract.provenance.head
    if output.kind == "logits" and head in _WITH_ACTIVATION:
        layer = require("keras").layers.Activation(output.activation, name="probabilities")
        model = require("keras").Model(model.inputs, layer(model.outputs[0]), name=model.name)
    facts = SourceFacts(
        contract.provenance.card,
        _pipeline(contract.input),
        contract.input.normalisation,
        contract.labels or None,
        told_by="its contract",
    )
    name = contract.provenance.source or path.stem
    return LoadedModel(name, model, facts)


def _pipeline(spec: Input) -> Pipeline:
    """Return the pipeline of a contract: a known one, or its geometry as it is."""
    geometry = spec.geometry
    if spec.pipeline in PIPELINES:
        return replace(PIPELINES[spec.pipeline], normalisation="")
    return Pipeline(
        "its contract",
        geometry.resize,
        geometry.fit,
        geometry.crop_fraction,
        geometry.orientation,
        geometry.scaled_decode,
        colour=spec.normalisation.colour,
    )


def _facts(content: ModelContent) -> SourceFacts:
    """Return the facts in a foreign file's metadata."""
    metadata = metadata_of(content)
    return SourceFacts(
        normalisation=metadata.normalisation,
        labels=_labels(content, metadata.labels),
        told_by="its metadata",
    )


def _labels(content: ModelContent, member: str | None) -> tuple[Label, ...] | None:
    if not (member and has_archive(content)):
        return None
    return parse(member_text(content, member), f"{content.path}: {member}", repeated=True)
