"""Model files as people have them: a .tflite or .onnx alone, or a zip with one and its labels.

Teachable Machine exports such a zip: `model.tflite` (uint8) or `model_unquant.tflite` (float32),
and `labels.txt` with numbers before the names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kedge_runtime.artefact import format_of
from kedge_runtime.contract import Label
from kedge_runtime.errors import ArtefactError, reason_of
from kedge_runtime.files import temporary_folder
from kedge_runtime.labels import parse, without_numbers
from kedge_runtime.pipelines import PIPELINES, Pipeline
from kedge_runtime.zips import read_members

ZIP = ".zip"
TEACHABLE = frozenset({"model.tflite", "model_unquant.tflite", "model_edgetpu.tflite"})
LABELS = "labels.txt"


@dataclass(frozen=True)
class ModelFile:
    """A model that an engine can open at `path`; `name` is what the user calls it.

    `labels`: those that came with it; `pipeline`: the one that its origin tells, `origin`: which.
    """

    path: Path
    name: str
    labels: tuple[Label, ...] = ()
    pipeline: Pipeline | None = None
    origin: str = ""

    @property
    def unpacked(self) -> bool:
        """Whether it came out of a zip."""
        return str(self.path) != self.name


def is_zip(path: Path) -> bool:
    """Whether it is a zip by its name."""
    return path.suffix.lower() == ZIP


@contextmanager
def opened(path: Path) -> Iterator[ModelFile]:
    """Yield the model of a file; a zip's is unpacked for as long as the block runs.

    Raises ArtefactError for another format, a file that isn't there, and a zip without one model.
    """
    if not is_zip(path):
        format_of(path)
        yield ModelFile(path, str(path))
        return
    members = _members(path)
    name = _the_model(path, members)
    with temporary_folder() as folder:
        # The name comes from a stranger: only its last part, and only as a known suffix.
        unpacked = folder / f"model{PurePosixPath(name).suffix.lower()}"
        unpacked.write_bytes(members[name])
        yield _described(path, unpacked, PurePosixPath(name).name, members)


def _members(path: Path) -> dict[str, bytes]:
    try:
        members = read_members(path, str(path))
    except OSError as error:
        raise ArtefactError(f"{path}: {reason_of(error)}") from None
    # macOS puts a shadow of each file beside it.
    return {name: each for name, each in members.items() if not name.startswith("__MACOSX/")}


def _the_model(path: Path, members: dict[str, bytes]) -> str:
    models = [name for name in members if name.lower().endswith((".tflite", ".onnx"))]
    if len(models) != 1:
        names = ", ".join(models or members) or "nothing"
        raise ArtefactError(
            f"{path}: a zip holds one .tflite or .onnx file, and this one holds {names}; "
            "unpack it and name the model"
        )
    return models[0]


def _described(path: Path, model: Path, name: str, members: dict[str, bytes]) -> ModelFile:
    texts = [each for each in members if PurePosixPath(each).name == LABELS]
    if len(texts) != 1:
        return ModelFile(model, str(path))
    where = f"{path}: {LABELS}"
    try:
        given = parse(
            members[texts[0]].decode("utf-8-sig").replace("\r\n", "\n"), where, repeated=True
        )
    except UnicodeDecodeError:
        raise ArtefactError(f"{where}: isn't UTF-8 text; give --labels FILE") from None
    labels = without_numbers(given)
    # Numbers from 0 before the names, and the model's own name: nobody else packs them so.
    if name in TEACHABLE and labels != given:
        pipeline = PIPELINES["teachable_machine"]
        return ModelFile(model, str(path), labels, pipeline, "Teachable Machine's zip")
    return ModelFile(model, str(path), labels)
