"""A sealed artefact, opened once and called on pictures."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kedge_runtime.artefact import Artefact, format_of, read_artefact
from kedge_runtime.contract import Contract
from kedge_runtime.engines import Engine, open_engine
from kedge_runtime.errors import EngineError
from kedge_runtime.head import Floats, Prediction, probabilities, top_k
from kedge_runtime.image import Pixels, Source
from kedge_runtime.preprocess import Preprocessor, dequantise


@dataclass(frozen=True)
class Result:
    """The answer for one picture, the most probable class first."""

    predictions: tuple[Prediction, ...]

    @property
    def best(self) -> Prediction:
        """The most probable class."""
        return self.predictions[0]


class Classifier:
    """Pixels in, answers out, as the artefact's contract says. Use one per thread."""

    def __init__(self, artefact: Artefact, engine: Engine) -> None:
        """Join an artefact with an engine that loaded it; raise EngineError if they disagree."""
        self.artefact, self.engine = artefact, engine
        self.contract = artefact.contract
        _check_agreement(self.contract, engine, artefact.path)
        self._preprocessor = Preprocessor(self.contract.input)

    @classmethod
    def open(cls, path: str | Path, *, threads: int | None = None) -> "Classifier":
        """Check the artefact's digest, read its contract, and load its engine.

        Raises ArtefactError for a file that isn't what was sealed, EngineError for an engine that
        is missing or refuses it. `threads`: default all cores.
        """
        path = Path(path)
        artefact = read_artefact(path)
        return cls(artefact, open_engine(format_of(path), path, threads))

    def __call__(self, image: Source, top: int = 5) -> Result:
        """Classify one picture: a path, encoded bytes, or an RGB uint8 array [h, w, 3]."""
        values = probabilities(self.outputs(image), self.contract.output)
        return Result(top_k(values, self.contract.labels, top))

    def many(self, images: Iterable[Source], top: int = 5) -> list[Result]:
        """Classify pictures one after the other."""
        return [self(image, top) for image in images]

    def outputs(self, image: Source) -> Floats:
        """Return the artefact's numbers for one picture, float32 [classes], before activation."""
        return self.run(self._preprocessor.read(image))

    def run(self, pixels: Pixels) -> Floats:
        """Return the same for pixels that are decoded already, RGB uint8 [h, w, 3]."""
        raw = self.engine.run(self._preprocessor.tensor(pixels))
        return dequantise(raw, self.contract.output.tensor).reshape(-1)


def _check_agreement(contract: Contract, engine: Engine, path: Path) -> None:
    """The engine's word on its own tensors must be the contract's."""
    geometry, tensor = contract.input.geometry, contract.input.tensor
    size = (geometry.height, geometry.width)
    expected = (1, *size, 3) if tensor.layout == "nhwc" else (1, 3, *size)
    pairs = {
        "input shape": (engine.input_shape, expected),
        "input": (engine.input, tensor),
        "output": (engine.output, contract.output.tensor),
        "number of classes": (math.prod(engine.output_shape), len(contract.labels)),
    }
    for what, (found, promised) in pairs.items():
        if found != promised:
            raise EngineError(
                f"{path}: the model's {what} is {found}, its contract says {promised}; "
                "convert again"
            )
