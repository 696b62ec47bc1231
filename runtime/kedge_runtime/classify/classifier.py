"""Open an artefact once, and classify images with it."""

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from kedge_runtime.arrays import Array, Floats, Pixels
from kedge_runtime.artefact.content import ModelContent, read_content, trust_of
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import Artefact, artefact_of
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.classify.arguments import (
    OPEN,
    check,
    check_colour,
)
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Classes, check_finite, probabilities
from kedge_runtime.engines.base import Engine
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError, UsageError, counted
from kedge_runtime.image.objects import Source
from kedge_runtime.image.opencv import cv2
from kedge_runtime.image.preprocessing import Preprocessor, dequantise, real_numbers


class Classifier(Predictor):
    """Classifies images as the artefact's contract says. Threads may share it.

    Attributes:
        contract: What the artefact says of its input, its output and its classes.
    """

    def __init__(self, artefact: Artefact, engine: Engine) -> None:
        """Join an artefact and the engine that loaded it. Raises EngineError if they disagree."""
        self.artefact, self.engine = artefact, engine
        self.contract = artefact.contract
        _check_agreement(self.contract, engine, artefact.path)
        self.classes = Classes.of_contract(self.contract)
        self.preprocessor = Preprocessor(self.contract.input)
        self._real_numbers = real_numbers(self.contract.output.tensor)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        delegate: str | None = None,
        engine: str | None = None,
        contract: Contract | None = None,
        key: str | os.PathLike[str] | None = None,
        min_serial: int = 0,
        isolate: bool = False,
    ) -> "Classifier":
        """Open an artefact: check its digest, read its contract, and load its engine.

        Args:
            path: A .tflite or .onnx file.
            threads: 1 to 1024; default: all cores this process may use.
            delegate: `edgetpu`, `edgetpu:usb`, `edgetpu:pci`, `edgetpu:N`, or the path of a
                delegate's shared library.
            engine: `litert`, `onnxruntime` or `opencv`; default: the first for the file's format.
            contract: For a file without a seal, which then runs isolated.
            key: The file of a public key. The artefact must be signed with it.
            min_serial: The lowest serial number that the signature may have.
            isolate: Run the engine in a process of its own, with bounds of memory and time.

        Returns:
            A classifier. Close it, or use it in a `with` block, to release its memory at once.

        Raises:
            ArtefactError: The file is missing, damaged, changed after it was sealed, or not signed
                with the key.
            EngineError: The engine is missing, or refuses the file.
            UsageError: An argument is wrong.
        """
        check(
            OPEN,
            path=path,
            threads=threads,
            delegate=delegate,
            engine=engine,
            contract=contract,
            key=key,
            min_serial=min_serial,
        )
        isolate = bool(isolate) or contract is not None
        threads = threads if threads is None else int(threads)
        options = EngineOptions(threads, delegate, engine, isolate=isolate)
        content = read_content(Path(path), trust=trust_of(key, int(min_serial)))
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

    def __repr__(self) -> str:
        """Return the file's name, the input's size, the precision, the classes and the engine."""
        spec, precision = self.contract.input, self.contract.provenance.precision
        size = f"{spec.geometry.width}x{spec.geometry.height}"
        facts = (
            f"{size} {spec.tensor.dtype if precision == 'unknown' else precision}",
            _outputs(self.contract),
            f"{self.engine.name} with {counted(self.engine.threads, 'thread')}",
            *(["closed"] if self.engine.closed else []),
        )
        return f"<Classifier {self.artefact.path.name!r}: {', '.join(facts)}>"

    def close(self) -> None:
        """Release the model's memory. Every later call raises EngineError."""
        self.engine.close()

    def probabilities(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the probability of every class.

        Args:
            image: One image, as for a call.
            colour: The order of an array's channels, "rgb" or "bgr".

        Returns:
            float32 [classes], 0 to 1.

        Raises:
            ImageError: The image can't be read.
            UsageError: The model outputs features, not classes, or an argument is wrong.
            EngineError: The engine fails, or is closed.
        """
        return self.prepared(image, colour)()

    def prepared(self, image: Source, colour: Colour = "rgb") -> Callable[[], Floats]:
        """Decode and preprocess an image; return the function that gives its probabilities."""
        self.check_answers()
        return self.prepared_pixels(self.read(image, colour))

    def prepared_pixels(self, pixels: Pixels) -> Callable[[], Floats]:
        """Preprocess RGB uint8 [h, w, 3]; return the function that gives the probabilities."""
        return partial(self._probabilities, self.preprocessor.tensor(pixels))

    def _probabilities(self, tensor: Array) -> Floats:
        return self.probabilities_in(self.numbers(self.engine.run(tensor)))

    def probabilities_in(self, outputs: Floats) -> Floats:
        """Return each class's probability for the model's outputs, float32, flat."""
        return probabilities(check_finite(outputs), self.contract.output)

    def features(self, image: Source, colour: Colour = "rgb") -> Floats:
        """Return the embedding of one image, from a model without its top.

        Args:
            image: One image, as for a call.
            colour: The order of an array's channels, "rgb" or "bgr".

        Returns:
            float32 in the shape of the model's output without the batch: [d] when pooled, else
            spatial, [h, w, d] or as the model orders it.

        Raises:
            ImageError: The image can't be read.
            UsageError: The model outputs classes, or an argument is wrong.
            EngineError: The engine fails, or is closed.
        """
        return self.prepared_features(image, colour)()

    def prepared_features(self, image: Source, colour: Colour = "rgb") -> Callable[[], Floats]:
        """Decode and preprocess an image; return the function that gives its embedding."""
        self.check_features()
        return partial(self._features, self.preprocessor.tensor(self.read(image, colour)))

    def _features(self, tensor: Array) -> Floats:
        values = check_finite(self.numbers(self.engine.run(tensor)))
        return values.reshape(self.engine.output_shape[1:])

    def outputs(self, image: Source) -> Floats:
        """Return the model's outputs for one image, float32, flat, before activation."""
        return self.run(self.read(image))

    def read(self, image: Source, colour: Colour = "rgb") -> Pixels:
        """Return an image's pixels, RGB uint8 [h, w, 3]; `colour` is the order of an array's.

        For a grey model an array may be [h, w].
        """
        check_colour(colour)
        if colour != "bgr" or (isinstance(image, np.ndarray) and image.ndim == 2):
            return self.preprocessor.read(image)
        if not isinstance(image, np.ndarray):
            raise UsageError("colour='bgr' is for arrays only; files and bytes have a known order")
        return np.asarray(cv2.cvtColor(self.preprocessor.read(image), cv2.COLOR_BGR2RGB), np.uint8)

    def run(self, pixels: Pixels) -> Floats:
        """Return the model's outputs for pixels, float32, flat, before activation."""
        return self.numbers(self.engine.run(self.preprocessor.tensor(pixels)))

    def numbers(self, raw: Array) -> Floats:
        """Dequantise an engine's output for one image: float32, flat."""
        if self._real_numbers is not None:
            return self._real_numbers.take(raw.view(np.uint8)).reshape(-1)
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


def _outputs(contract: Contract) -> str:
    if contract.output.kind == "features":
        return "features"
    count = len(contract.labels)
    return f"{count} {'class' if count == 1 else 'classes'}"


def _remedy(contract: Contract) -> str:
    return "correct the contract" if contract.provenance.precision == "unknown" else "convert again"
