"""Where a drift comes from: the same pictures down a chain from Keras to the device.

Each link of the chain differs from the one before in one step only, so that the steps' shares add
up to the total exactly, whatever the order of the pictures.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert import own_pixels
from kedge_convert.drift.recording import load_original
from kedge_convert.export.formats import FORMATS
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_models.cards import card
from kedge_runtime.arrays import Floats, Indices
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract, Input, Output
from kedge_runtime.artefact.file import Artefact
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.outputs import label_sets, probabilities
from kedge_runtime.drift.gates import Estimate, Pairs
from kedge_runtime.drift.recording import Original, Sample
from kedge_runtime.drift.report import Attribution, AttributionStep
from kedge_runtime.engines.choice import ENGINES, EngineOptions, engine_for, open_engine
from kedge_runtime.errors import EngineError, ImageError, UsageError
from kedge_runtime.image.preprocessing import Preprocessor
from kedge_runtime.output import quiet
from kedge_runtime.progress import Bar

# Returns a picture's answer as a number (`_answer`), or raises ImageError.
Ask = Callable[[Path], int]

# The answer of a picture that one of the links can't read.
UNREAD = -2


@dataclass(frozen=True)
class Link:
    """One end of a step: `step` leads to it ("" for the first), `what` it is, and its answers."""

    step: str
    what: str
    ask: Ask


def attribute(
    original: Original, artefacts: Sequence[Artefact], sample: Sample, options: EngineOptions
) -> list[Attribution]:
    """Return what each step from Keras to the engine of `options` adds, of every artefact.

    All are made from the original and fed alike. Raises UsageError when no picture can be read.
    """
    source = load_original(original)
    first = [_asked(link, sample) for link in _fed(source, original.artefact.contract)]
    return [
        _summed([*first, *_measured(source, artefact, sample, options)], sample, artefact)
        for artefact in artefacts
    ]


Asked = tuple[Link, Indices]


def _measured(
    source: Source, artefact: Artefact, sample: Sample, options: EngineOptions
) -> list[Asked]:
    return [_asked(link, sample) for link in _run(source, artefact, options)]


def _summed(asked: Sequence[Asked], sample: Sample, artefact: Artefact) -> Attribution:
    answers = np.stack([found for _, found in asked])
    read = (answers != UNREAD).all(axis=0)
    if not read.any():
        raise UsageError("--attribute: none of the pictures can be read by Keras and by kedge")
    offset = artefact.contract.output.label_offset
    truth = None if sample.truth is None else sample.truth[read] + offset
    return attribution([link for link, _ in asked], answers[:, read], truth)


def attribution(links: Sequence[Link], answers: Indices, truth: Indices | None) -> Attribution:
    """Return the shares of the steps between links, by their answers, [links, pictures]."""
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


def _asked(link: Link, sample: Sample) -> Asked:
    found = []
    with Bar(f"attribute: {link.what}", len(sample.pictures)) as bar:
        for picture in sample.pictures:
            try:
                with quiet():
                    found.append(link.ask(picture))
            except ImageError:
                found.append(UNREAD)
            bar.advance()
    return link, np.array(found, np.int64)


def _fed(source: Source, contract: Contract) -> list[Link]:
    """Return the original as its makers feed it, and as its artefacts are fed.

    Its makers' way is the pipeline that the contract names; without one, Keras's documentation.
    """
    if library := own_pixels.library(contract.input):
        first = Link("", library, _own(source, contract))
    else:
        first = Link("", "Keras", _keras(source, contract))
    return [
        first,
        Link("preprocessing", "the contract's pixels", _original(source)),
    ]


def _run(source: Source, artefact: Artefact, options: EngineOptions) -> list[Link]:
    """Return the links behind Keras that there are for an artefact: nothing was quantised in a
    float32 one, and only LiteRT has kernels to hold an engine against.
    """
    content, contract = read_content(artefact.path), artefact.contract
    form = content.format
    links, step = [], "export"
    if contract.provenance.precision != "float32":
        with quiet():
            data = FORMATS[form].export(source, "float32", (), lambda: None).content
        exported = ModelContent(Path(f"float.{form}"), form, data)
        links.append(Link(step, f"float32 {form}", _engine(exported, contract, EngineOptions())))
        step = "quantisation"
    exact = "reference" in ENGINES[engine_for(form, options)].kernels
    if exact and (ask := _reference(content, contract)):
        links.append(Link(step, "reference kernels", ask))
        step = "engine"
    return [*links, Link(step, "the artefact", _engine(content, contract, options))]


def _reference(content: ModelContent, contract: Contract) -> Ask | None:
    """Return the answers of LiteRT's reference kernels, None where they lack an operator (ELU)."""
    try:
        return _engine(content, contract, EngineOptions(kernels="reference"))
    except EngineError:
        return None


def _engine(content: ModelContent, contract: Contract, options: EngineOptions) -> Ask:
    """Return the answers of a file, sealed or not, to which a contract belongs."""
    with quiet():
        engine = open_engine(content, options)
    stated = replace(
        contract,
        input=replace(contract.input, tensor=engine.input),
        output=replace(contract.output, tensor=engine.output),
    )
    classifier = Classifier(Artefact(content.path, stated, Golden.none(), ""), engine)

    def ask(picture: Path) -> int:
        return _answer(classifier.probabilities(picture), contract.output)

    return ask


def _original(source: Source) -> Ask:
    plan = Preprocessor(source.input)
    return lambda picture: _asked_of(source, plan.tensor(plan.read(picture)))


def _own(source: Source, contract: Contract) -> Ask:
    """Return the answers of the original fed by the library that its pipeline belongs to."""
    plan = Preprocessor(source.input)

    def ask(picture: Path) -> int:
        plan.read(picture)  # refuses what is beyond kedge's limits, of which others have none
        tensors = own_pixels.own_tensors([picture], contract.input)
        return _asked_of(source, next(iter(tensors or ())))

    return ask


def _keras(source: Source, contract: Contract) -> Ask:
    """Return the answers of the original fed as Keras's own documentation does it."""
    keras = require("keras")
    geometry = contract.input.geometry
    size = (geometry.height, geometry.width)
    normalise, plan = _preprocess_input(contract), Preprocessor(source.input)

    def ask(picture: Path) -> int:
        plan.read(picture)  # refuses what is beyond kedge's limits, of which Keras has none
        try:
            loaded = keras.utils.load_img(picture, target_size=size)
        except OSError as error:
            raise ImageError(f"{picture}: Keras can't read it ({error})") from None
        return _asked_of(source, normalise(keras.utils.img_to_array(loaded)[None]))

    return ask


def _preprocess_input(contract: Contract) -> Callable[[Floats], Floats]:
    """Return the card's own function in Keras, or for a model without card the contract's table."""
    if name := contract.provenance.card:
        module = getattr(require("keras").applications, card(name).module)
        function: Callable[[Floats], Floats] = module.preprocess_input
        return function
    plan = Preprocessor(Input(contract.input.geometry, contract.input.normalisation))
    return lambda pixels: plan.look_up(pixels[0].astype(np.uint8))


def _asked_of(source: Source, tensor: NDArray[Any]) -> int:
    outputs = source.logits(iter([tensor]))[0]
    return _answer(probabilities(outputs, source.output), source.output)


def _answer(values: Floats, output: Output) -> int:
    """Return the best output's index or, of independent classes, a digest of the set of labels."""
    if not output.multi_label:
        return int(values.argmax())
    digest = hashlib.sha256(label_sets(values, output).tobytes()).digest()
    return int.from_bytes(digest[:7], "big")
