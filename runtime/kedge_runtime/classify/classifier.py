"""Open an artefact once, and classify images with it, or with an ensemble of several."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats, Pixels
from kedge_runtime.artefact.content import ModelContent, read_content, trust_of
from kedge_runtime.artefact.contract import Colour, Contract
from kedge_runtime.artefact.file import Artefact, artefact_of
from kedge_runtime.classify.results import Classes, Result, Rule, check_finite, probabilities
from kedge_runtime.engines.base import Engine
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError, ImageError, UsageError
from kedge_runtime.image.decode import Source
from kedge_runtime.image.preprocessing import Preprocessor, dequantise

AnySource = TypeVar("AnySource", bound=Source)


class Predictor(ABC):
    """Classifies images: a classifier, or an ensemble of them."""

    classes: Classes

    @abstractmethod
    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return each class's probability, float32 [classes], 0..1."""

    @overload
    def __call__(
        self, image: Source, *, top: int = ..., rule: Rule = ..., colour: Colour = ...
    ) -> Result: ...

    @overload
    def __call__(
        self, image: list[AnySource], *, top: int = ..., rule: Rule = ..., colour: Colour = ...
    ) -> list[Result]: ...

    def __call__(
        self,
        image: Source | list[AnySource],
        *,
        top: int = 5,
        rule: Rule = Rule(),
        colour: Colour = "rgb",
    ) -> Result | list[Result]:
        """Classify one image, or a list of them one after the other.

        An image is a path, encoded bytes, or a uint8 array [h, w, 3], whose channels are in the
        order of `colour`: a frame of cv2.VideoCapture is "bgr". `top`: the most classes to return.
        Raises ImageError for the first image that can't be read; see `each`.
        """
        if not isinstance(image, list):
            return self.classes.result(self.probabilities(image, colour), top, rule)
        answers = []
        for i, item in enumerate(image, 1):
            try:
                answers.append(self(item, top=top, rule=rule, colour=colour))
            except ImageError as error:
                raise ImageError(f"image {i} of {len(image)}: {error}") from None
        return answers

    def each(
        self,
        images: Iterable[Source],
        *,
        top: int = 5,
        rule: Rule = Rule(),
        colour: Colour = "rgb",
    ) -> Iterator[Result | ImageError]:
        """Yield a result per image, or the error of one that can't be read."""
        for image in images:
            try:
                yield self(image, top=top, rule=rule, colour=colour)
            except ImageError as error:
                yield error


class Classifier(Predictor):
    """Classifies images as the artefact's contract says. Threads may share it."""

    def __init__(self, artefact: Artefact, engine: Engine) -> None:
        """Join an artefact and the engine that loaded it. Raises EngineError if they disagree."""
        self.artefact, self.engine = artefact, engine
        self.contract = artefact.contract
        _check_agreement(self.contract, engine, artefact.path)
        self.classes = Classes.of(self.contract.labels, self.contract.output)
        self.preprocessor = Preprocessor(self.contract.input)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        delegate: str | None = None,
        engine: str | None = None,
        contract: Contract | None = None,
        key: str | Path | None = None,
        min_serial: int = 0,
        isolate: bool = False,
    ) -> "Classifier":
        """Check the artefact's digest, read its contract, and load its engine.

        `threads`, `delegate`, `engine`, `isolate`: see EngineOptions. `contract`: for a file
        without a seal, which runs isolated. `key`: a public key's file; the artefact must be signed
        with it, and have a serial number of `min_serial` or more. Raises ArtefactError for a file
        that changed after sealing, SignatureError for one without the demanded signature,
        EngineError for an engine that is missing or refuses the file.
        """
        isolate = isolate or contract is not None
        options = EngineOptions(threads, delegate, engine, isolate=isolate)
        content = read_content(Path(path), trust=trust_of(key, min_serial))
        return cls.of(content, options, contract)

    @classmethod
    def of(
        cls, content: ModelContent, options: EngineOptions, contract: Contract | None = None
    ) -> "Classifier":
        """Open an artefact whose file is already read. Raises what `open` does."""
        if contract is None:
            return cls(artefact_of(content), open_engine(content, options))
        # Imported here, as most devices run sealed files only.
        from kedge_runtime.artefact.foreign import complete, unsealed

        artefact = unsealed(content, contract)
        engine = open_engine(content, options)
        return cls(complete(artefact, engine), engine)

    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return each class's probability, float32 [classes], 0..1."""
        self.check_answers()
        return self.probabilities_of(self.read(image, colour))

    def probabilities_of(self, pixels: Pixels) -> Floats:
        """Return each class's probability for decoded pixels, RGB uint8 [h, w, 3]."""
        return probabilities(check_finite(self.run(pixels)), self.contract.output)

    def features(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the embedding of a feature model, float32.

        Its shape is the model's output without the batch: [d] when pooled, else spatial, [h, w, d]
        or as the model orders it. Raises UsageError for a model that outputs classes.
        """
        self.check_features()
        values = check_finite(self.run(self.read(image, colour)))
        return values.reshape(self.engine.output_shape[1:])

    def outputs(self, image: Source) -> Floats:
        """Return the model's outputs for one image, float32, flat, before activation."""
        return self.run(self.read(image))

    def read(self, image: Source, colour: Colour = "rgb") -> Pixels:
        """Return an image's pixels, RGB uint8 [h, w, 3]; `colour` is the order of an array's.

        For a grey model an array may be [h, w].
        """
        if colour != "bgr" or (isinstance(image, np.ndarray) and image.ndim == 2):
            return self.preprocessor.read(image)
        if not isinstance(image, np.ndarray):
            raise UsageError("colour='bgr' is for arrays only; files and bytes have a known order")
        return np.asarray(cv2.cvtColor(self.preprocessor.read(image), cv2.COLOR_BGR2RGB), np.uint8)

    def run(self, pixels: Pixels) -> Floats:
        """Return the model's outputs for pixels, float32, flat, before activation."""
        return self.numbers(self.engine.run(self.preprocessor.tensor(pixels)))

    def numbers(self, raw: NDArray[Any]) -> Floats:
        """Dequantise an engine's output for one image: float32, flat."""
        return dequantise(raw, self.contract.output.tensor).reshape(-1)

    def check_answers(self) -> None:
        """Raise UsageError for a model that outputs features instead of classes."""
        if self.contract.output.kind == "features":
            raise UsageError(
                f"{self.artefact.path}: the model outputs features, not classes; "
                "use --save-features or classifier.features(image)"
            )

    def check_features(self) -> None:
        """Raise UsageError for a model that outputs classes instead of features."""
        kind = self.contract.output.kind
        if kind != "features":
            raise UsageError(
                f"{self.artefact.path}: the model outputs {kind}, not features; "
                "use a model without its top (include_top=False)"
            )


def _check_agreement(contract: Contract, engine: Engine, path: Path) -> None:
    """Raise EngineError unless the engine's tensors are those of the contract."""
    _check_channels(engine, path)
    pairs = {
        "input shape": (engine.input_shape, contract.input.shape),
        "input": (engine.input, contract.input.tensor),
        "output": (engine.output, contract.output.tensor),
    }
    if contract.output.kind != "features":
        classes = len(contract.labels) + contract.output.label_offset
        pairs["number of classes"] = (math.prod(engine.output_shape), classes)
    for what, (actual, promised) in pairs.items():
        if actual != promised:
            raise EngineError(
                f"{path}: the model's {what} is {actual}, its contract says {promised}; "
                f"{_remedy(contract)}"
            )


def _check_channels(engine: Engine, path: Path) -> None:
    shape = engine.input_shape
    if len(shape) == 4 and 4 in (shape[1], shape[3]) and not {1, 3} & {shape[1], shape[3]}:
        raise EngineError(
            f"{path}: the model takes images of four channels, allowed are three (RGB) or one: "
            "convert a model that takes RGB and adds the fourth channel itself"
        )


def _remedy(contract: Contract) -> str:
    return "correct the contract" if contract.provenance.precision == "unknown" else "convert again"


class Ensemble(Predictor):
    """Classifies with the mean of several classifiers' probabilities. Threads may share it."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        """Join classifiers of the same classes; the first one's thresholds count.

        Raises UsageError for an empty list, for classes that differ, and for feature models.
        """
        if not members:
            raise UsageError("the ensemble has no classifiers; give at least one")
        self.members = tuple(members)
        for member in self.members:
            member.check_answers()
            _check_classes(self.members[0], member)
        self.classes = self.members[0].classes

    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the mean of the members' probabilities, float32 [classes], 0..1.

        Members with the same geometry share one decoded image.
        """
        decoded = {
            member.contract.input.geometry: member.read(image, colour)
            for member in self._one_per_geometry()
        }
        rows = [m.probabilities_of(decoded[m.contract.input.geometry]) for m in self.members]
        return np.asarray(np.mean(rows, axis=0), np.float32)

    def _one_per_geometry(self) -> Sequence[Classifier]:
        return tuple({m.contract.input.geometry: m for m in self.members}.values())


def _check_classes(first: Classifier, other: Classifier) -> None:
    ours, theirs = first.classes, other.classes
    if (ours.labels, ours.multi_label) == (theirs.labels, theirs.multi_label):
        return
    what = "another type of output" if ours.labels == theirs.labels else "other classes"
    raise UsageError(
        f"{other.artefact.path}: has {what} than {first.artefact.path}; "
        "an ensemble needs the same labels in the same order and the same type of output"
    )
