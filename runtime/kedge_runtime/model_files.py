"""Model files as people have them: a .tflite or .onnx alone, or a zip with one and its labels.

Teachable Machine exports such a zip: `model.tflite` (uint8) or `model_unquant.tflite` (float32),
and `labels.txt` with numbers before the names.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kedge_runtime.content import ModelContent, read_content
from kedge_runtime.contract import Label
from kedge_runtime.errors import ArtefactError, SignatureError, reason_of
from kedge_runtime.labels import parse, without_numbers
from kedge_runtime.pipelines import PIPELINES, Pipeline
from kedge_runtime.zips import read_members

if TYPE_CHECKING:
    from kedge_runtime.signature import Trust

ZIP = ".zip"
TEACHABLE = frozenset({"model.tflite", "model_unquant.tflite", "model_edgetpu.tflite"})
LABELS = "labels.txt"


@dataclass(frozen=True)
class ModelFile:
    """A model as it was read, out of a zip or alone.

    `labels`: those that came with it; `pipeline`: the one that its origin tells, `origin`: which.
    """

    content: ModelContent
    labels: tuple[Label, ...] = ()
    pipeline: Pipeline | None = None
    origin: str = ""

    @property
    def name(self) -> str:
        """What the user calls it."""
        return str(self.content.path)

    @property
    def unpacked(self) -> bool:
        """Whether it came out of a zip."""
        return is_zip(self.content.path)


def is_zip(path: Path) -> bool:
    """Whether it is a zip by its name."""
    return path.suffix.lower() == ZIP


def read_model(path: Path, trust: "Trust | None" = None) -> ModelFile:
    """Read the model of a file, or of a zip; `trust`: the signature that is demanded.

    Raises ArtefactError for another format, a file that isn't there, and a zip without one model;
    SignatureError.
    """
    if not is_zip(path):
        return ModelFile(read_content(path, trust=trust))
    if trust is not None:
        raise SignatureError(f"{path}: a zip carries no signature, --key demands one")
    members = _members(path)
    name = _the_model(path, members)
    form = PurePosixPath(name).suffix.lower().lstrip(".")
    model = ModelContent(path, form, members[name])
    return _described(model, PurePosixPath(name).name, members)


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


def _described(model: ModelContent, name: str, members: dict[str, bytes]) -> ModelFile:
    texts = [each for each in members if PurePosixPath(each).name == LABELS]
    if len(texts) != 1:
        return ModelFile(model)
    where = f"{model.path}: {LABELS}"
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
        return ModelFile(model, labels, pipeline, "Teachable Machine's zip")
    return ModelFile(model, labels)
