"""Record the float model's answers, divide a drift among its steps, and measure layers.

The runtime's `kedge drift` calls `record`, `attribute`, `localise` and `page` by name; mypy checks
this module against its Protocol. To attribute a drift, the same images go down a chain, in which
each link differs from the one before in one step. So the steps' drops add up to the total exactly.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert import own_pixels
from kedge_convert.contract_builder import tool_versions
from kedge_convert.drift.layer_show import svg, table
from kedge_convert.drift.layers import Localisation, by_layer, plain
from kedge_convert.drift.page import page as page
from kedge_convert.export.formats import FORMATS
from kedge_convert.load import registry
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import Source, load_source
from kedge_convert.toolkit import require
from kedge_models.cards import card
from kedge_runtime.arrays import Floats, Indices
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract, Input, Output
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import label_sets, probabilities
from kedge_runtime.drift import recording
from kedge_runtime.drift.gates import Estimate, Pairs
from kedge_runtime.drift.journal import ImageFolder
from kedge_runtime.drift.recording import Against, LayerFindings, Recorder, Sample
from kedge_runtime.drift.reference import ReferenceFacts
from kedge_runtime.drift.report import Attribution, AttributionStep
from kedge_runtime.engines.choice import ENGINES, EngineOptions, engine_for, open_engine
from kedge_runtime.errors import EngineError, ImageError, UsageError
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
        force_input=True,
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


# Returns the answer to an image as a number (`_answer`), or raises ImageError.
Predictor = Callable[[Path], int]

# The answer of a link that can't read the image.
UNREAD = -2


@dataclass(frozen=True)
class Link:
    """Hold a link: the `step` that leads to it ("" for the first), its name and its predictor."""

    step: str
    what: str
    predict: Predictor


def attribute(
    against: Against, artefacts: Sequence[Artefact], sample: Sample, engine: EngineOptions
) -> list[Attribution]:
    """Return what each step from Keras to `engine` adds to each artefact's drift.

    All artefacts have one float model and one preprocessing. Raises UsageError when no image can be
    read.
    """
    source = load_float_model(against)
    first = [_answered(link, sample) for link in _keras_links(source, against.artefact.contract)]
    found = []
    for artefact in artefacts:
        links = _artefact_links(source, artefact, engine)
        answered = [*first, *(_answered(link, sample) for link in links)]
        found.append(_summed(answered, sample, artefact.contract.output.label_offset))
    return found


Answered = tuple[Link, Indices]


def _summed(answered: Sequence[Answered], sample: Sample, offset: int) -> Attribution:
    answers = np.stack([each for _, each in answered])
    read = (answers != UNREAD).all(axis=0)
    if not read.any():
        raise UsageError(
            "--attribute: no image is readable by both Keras and kedge; give other images"
        )
    truth = None if sample.truth is None else sample.truth[read] + offset
    return attribution([link for link, _ in answered], answers[:, read], truth)


def attribution(links: Sequence[Link], answers: Indices, truth: Indices | None) -> Attribution:
    """Return what each step adds, by the links' answers, [links, images]."""
    apart = (answers != answers[0]).mean(axis=1)
    steps = tuple(
        AttributionStep(
            name=links[i].step,
            what=f"{links[i - 1].what} -> {links[i].what}",
            drop=_drop(answers[i - 1], answers[i], truth),
            disagreement=float(apart[i] - apart[i - 1]),
            flips=float((answers[i] != answers[i - 1]).mean()),
        )
        for i in range(1, len(links))
    )
    total = _drop(answers[0], answers[-1], truth)
    return Attribution(answers.shape[1], steps, total, float(apart[-1]))


def _drop(before: Indices, after: Indices, truth: Indices | None) -> Estimate | None:
    if truth is None:
        return None
    a, b = before == truth, after == truth
    cells = (a & b, a & ~b, ~a & b, ~a & ~b)
    return Pairs(*(int(cell.sum()) for cell in cells)).drop


def _answered(link: Link, sample: Sample) -> Answered:
    answers = []
    with Bar(f"attribute: {link.what}", len(sample.images)) as bar:
        for image in sample.images:
            try:
                with quiet():
                    answers.append(link.predict(image))
            except ImageError:
                answers.append(UNREAD)
            bar.advance()
    return link, np.array(answers, np.int64)


def _keras_links(source: Source, contract: Contract) -> list[Link]:
    """Return the float model with its training's preprocessing, then with the contract's.

    The first is the pipeline that the contract names; without one, as Keras documents it.
    """
    if library := own_pixels.library(contract.input):
        first = Link("", library, _by_library(source, contract))
    else:
        first = Link("", "Keras", _by_keras(source, contract))
    return [first, Link("preprocessing", "the contract's pixels", _by_contract(source))]


def _artefact_links(source: Source, artefact: Artefact, engine: EngineOptions) -> list[Link]:
    """Return the links behind Keras that an artefact has.

    A float32 artefact has no quantisation; only LiteRT has reference kernels.
    """
    content, contract = read_content(artefact.path), artefact.contract
    links, step = [], "export"
    if contract.provenance.precision != "float32":
        with quiet():
            data = FORMATS[content.format].export(source, "float32").content
        exported = ModelContent(Path(f"float.{content.format}"), content.format, data)
        predict = _by_engine(exported, contract, EngineOptions())
        links.append(Link(step, f"float32 {content.format}", predict))
        step = "quantisation"
    exact = "reference" in ENGINES[engine_for(content.format, engine)].kernels
    if exact and (reference := _by_reference_kernels(content, contract)):
        links.append(Link(step, "reference kernels", reference))
        step = "engine"
    return [*links, Link(step, "the artefact", _by_engine(content, contract, engine))]


def _by_reference_kernels(content: ModelContent, contract: Contract) -> Predictor | None:
    """Predict with LiteRT's reference kernels; None where they lack an operator (ELU)."""
    try:
        return _by_engine(content, contract, EngineOptions(kernels="reference"))
    except EngineError:
        return None


def _by_engine(content: ModelContent, contract: Contract, options: EngineOptions) -> Predictor:
    """Predict with a file, sealed or not, by a contract."""
    with quiet():
        engine = open_engine(content, options)
    stated = replace(
        contract,
        input=replace(contract.input, tensor=engine.input),
        output=replace(contract.output, tensor=engine.output),
    )
    classifier = Classifier(Artefact(content.path, stated, b"", ""), engine)

    def predict(image: Path) -> int:
        return _answer(classifier.probabilities(image), contract.output)

    return predict


def _by_contract(source: Source) -> Predictor:
    """Predict with the float model and kedge's own preprocessing."""
    preprocessor = Preprocessor(source.input)
    return lambda image: _predicted(source, preprocessor.tensor(preprocessor.read(image)))


def _by_library(source: Source, contract: Contract) -> Predictor:
    """Predict with the float model and the preprocessing of its training's library."""
    preprocessor = Preprocessor(source.input)

    def predict(image: Path) -> int:
        preprocessor.read(image)  # applies kedge's limits; the library has none
        tensors = own_pixels.own_tensors([image], contract.input)
        return _predicted(source, next(iter(tensors or ())))

    return predict


def _by_keras(source: Source, contract: Contract) -> Predictor:
    """Predict with the float model and the preprocessing that Keras documents."""
    keras = require("keras")
    geometry = contract.input.geometry
    size = (geometry.height, geometry.width)
    normalise, preprocessor = _preprocess_input(contract), Preprocessor(source.input)

    def predict(image: Path) -> int:
        preprocessor.read(image)  # applies kedge's limits; Keras has none
        try:
            loaded = keras.utils.load_img(image, target_size=size)
        except OSError as error:
            raise ImageError(f"{image}: Keras can't read it ({error})") from None
        return _predicted(source, normalise(keras.utils.img_to_array(loaded)[None]))

    return predict


def _preprocess_input(contract: Contract) -> Callable[[Floats], Floats]:
    """Return the card's function in Keras, or without a card the contract's normalisation."""
    if name := contract.provenance.card:
        module = getattr(require("keras").applications, card(name).module)
        function: Callable[[Floats], Floats] = module.preprocess_input
        return function
    preprocessor = Preprocessor(Input(contract.input.geometry, contract.input.normalisation))
    return lambda pixels: preprocessor.look_up(pixels[0].astype(np.uint8))


def _predicted(source: Source, tensor: NDArray[Any]) -> int:
    outputs = source.logits(iter([tensor]))[0]
    return _answer(probabilities(outputs, source.output), source.output)


def _answer(values: Floats, output: Output) -> int:
    """Return the best output's index; of independent classes, a digest of the set of labels."""
    if not output.multi_label:
        return int(values.argmax())
    digest = hashlib.sha256(label_sets(values, output).tobytes()).digest()
    return int.from_bytes(digest[:7], "big")


if TYPE_CHECKING:
    from kedge_convert.drift import hooks
    from kedge_runtime.drift.recording import Converter

    CONFORMS: Converter = hooks
