"""The record beside each model file of `make_model_files.py`: how it was made and is fed."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from people_pixels import OF_PIPELINE, Floats, normalised

IMAGES, PIXELS = "images", "pixels"
# Of options that a Request has and `kedge convert` spells alike.
OPTIONS = ("preprocess", "normalisation", "colour", "labels", "output", "weights")
FLOAT = 1e-3  # the largest difference in probability that a float32 artefact may have


@dataclass(frozen=True)
class Described:
    """One model file. All paths are relative to the folder of the description.

    `shape`, `container`, `program`: what was saved, how, and by which version. `input_shape`: of
    one image in the model. `preprocess` to `output`: kedge's options; None where the model or the
    default tells. `kind`: what the model's numbers are. `pixels`: the file with the tensors.
    `images`: those that were asked, in the order of the answers. `limit`: of the difference in
    probability.
    """

    name: str
    file: str
    shape: str
    container: str
    program: str
    input_shape: tuple[int, ...]
    preprocess: str
    normalisation: str | None
    colour: str | None
    labels: str
    output: str | None
    weights: str | None
    kind: str
    pixels: str
    images: tuple[str, ...]
    limit: float = FLOAT

    def write(self, folder: Path, answers: Floats) -> None:
        """Write the description and the framework's probabilities, float32 [images, classes]."""
        text = json.dumps(asdict(self), indent=1)
        (folder / f"{self.name}.json").write_text(f"{text}\n")
        np.savez_compressed(folder / f"{self.name}.npz", answers=answers)

    def answers(self, folder: Path) -> Floats:
        """Return the framework's own probabilities, float32 [images, classes]."""
        with np.load(folder / f"{self.name}.npz") as stored:
            return np.asarray(stored["answers"], np.float32)

    def tensors(self, folder: Path) -> Floats:
        """Return what the model was fed, float32 [images, *input_shape]."""
        with np.load(folder / self.pixels) as stored:
            values = np.asarray(stored["values"], np.float32)
        name = self.normalisation or OF_PIPELINE.get(self.preprocess)
        return normalised(values, name).reshape(-1, *self.input_shape)

    def options(self, folder: Path) -> dict[str, Any]:
        """Return what the user says of the model, by the names that a Request has."""
        told: dict[str, Any] = {name: getattr(self, name) for name in OPTIONS}
        for name in ("labels", "weights"):
            told[name] = told[name] and str(folder / told[name])
        return {name: value for name, value in told.items() if value is not None}

    def file_in(self, folder: Path) -> str:
        """Return the path of the model."""
        return str(folder / self.file)

    @property
    def is_exact(self) -> bool:
        """Whether the float model computes what was saved: neither half floats nor integers."""
        return self.limit <= FLOAT

    def arguments(self, folder: Path) -> list[str]:
        """Return the same as arguments of `kedge convert`, the file first."""
        pairs = [(f"--{name}", value) for name, value in self.options(folder).items()]
        return [self.file_in(folder), *(word for pair in pairs for word in pair)]


def read(path: Path) -> Described:
    """Return the description of a file."""
    fields = json.loads(path.read_text())
    lists = {name: tuple(fields[name]) for name in ("input_shape", "images")}
    return Described(**fields | lists)


def read_all(folder: Path) -> list[Described]:
    """Return the descriptions in a folder, by name."""
    return [read(path) for path in sorted(folder.glob("*.json")) if not _is_model(path)]


def _is_model(path: Path) -> bool:
    """Whether a .json is a model's configuration (Keras's to_json)."""
    return "class_name" in json.loads(path.read_text())
