"""Open model files that kedge did not make.

The user states the facts that the file lacks; the file and the engine supply the rest. A zip may
hold the model beside its labels.
"""

import io
import json
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kedge_runtime.artefact.content import ModelContent, file_errors, read_content
from kedge_runtime.artefact.contract import Contract, Label, Tensor
from kedge_runtime.artefact.file import Artefact, ends_in_digest
from kedge_runtime.engines.base import Engine
from kedge_runtime.errors import (
    ArtefactError,
    ContractError,
    SignatureError,
    UsageError,
    about,
    reason_of,
)
from kedge_runtime.files import read_text
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.pipelines import PIPELINES, Pipeline
from kedge_runtime.records import encode, shown

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust
    from kedge_runtime.modelfile.tflite_metadata import Metadata


def metadata_of(model: ModelContent) -> "Metadata":
    """Return a file's own metadata, empty for ONNX, which has no convention for it.

    Raises ArtefactError when it can't be read.
    """
    from kedge_runtime.modelfile import tflite_metadata  # sealed files have no need of it

    return tflite_metadata.read(model) if model.format == "tflite" else tflite_metadata.Metadata()


@dataclass(frozen=True)
class ForeignFacts:
    """A contract for foreign files, which the user wrote as JSON; parts may be absent."""

    path: Path
    data: Any

    def contract(self, model: ModelContent | None = None) -> Contract:
        """Return the contract; the model's own metadata fills in absent parts.

        Raises ContractError for a key that is missing or wrong, ArtefactError for metadata that
        can't be read.
        """
        data = self.data
        if isinstance(data, dict) and model is not None:
            data = _with_metadata(data, model)
        if isinstance(data, dict) and isinstance(data.get("labels"), str):
            data = {**data, "labels": _named(self.path.parent / data["labels"], model)}
        with about(self.path):
            return Contract.from_json(json.dumps(data))


def read_facts(path: Path) -> ForeignFacts:
    """Read a user's contract from a JSON file. Raises ContractError when it can't be read."""
    try:
        return ForeignFacts(path, json.loads(_text(path)))
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: no JSON: {error}") from None


def read_contract(
    path: str | os.PathLike[str], model: str | os.PathLike[str] | None = None
) -> Contract:
    """Read a contract from a JSON file (docs/contract.md), for a file that kedge didn't make.

    `labels` may be the name of a text file with a class a line, numbered or not, beside the
    contract or in the archive behind the model. The TFLite Metadata of a .tflite model supplies
    normalisation and labels where the contract has none.

    Args:
        path: The JSON file.
        model: The model that the contract is for.

    Returns:
        The contract, for `Classifier.open`.

    Raises:
        ContractError: The file can't be read, or a key is missing or wrong.
        ArtefactError: The model can't be read, or its metadata is damaged.
        UsageError: An argument is no path.
    """
    for name, value in {"path": path, "model": path if model is None else model}.items():
        if not isinstance(value, str | os.PathLike):
            raise UsageError(f"{name} is {shown(value)}, expected a path")
    return read_facts(Path(path)).contract(read_content(Path(model)) if model else None)


def unsealed(content: ModelContent, contract: Contract) -> Artefact:
    """Return a foreign file with the user's contract. Raises ArtefactError for a sealed file."""
    if ends_in_digest(content.data):
        raise ArtefactError(f"{content.path}: carries its own contract: leave the other one out")
    return Artefact(content.path, contract, b"", digest="")


def complete(artefact: Artefact, engine: Engine) -> Artefact:
    """Fill in absent parts of the contract: tensors from the engine, numbers as class names."""
    contract = artefact.contract
    spec, output = contract.input, contract.output
    filled = replace(
        contract,
        input=replace(spec, tensor=_stated(spec.tensor, engine.input)),
        output=replace(output, tensor=_stated(output.tensor, engine.output)),
        labels=contract.labels or _numbered(contract, engine),
    )
    return replace(artefact, contract=filled)


def _stated(tensor: Tensor, of_engine: Tensor) -> Tensor:
    return of_engine if tensor == Tensor() else tensor


def _numbered(contract: Contract, engine: Engine) -> tuple[Label, ...]:
    if contract.output.kind == "features":
        return ()
    count = engine.output_shape[-1] - contract.output.label_offset
    return tuple(Label(str(i), f"class {i}") for i in range(count))


def _with_metadata(data: dict[str, Any], model: ModelContent) -> dict[str, Any]:
    """Return the contract's data with the model's own metadata; the user's data override it."""
    spec = data.get("input")
    if not isinstance(spec, dict) or ("labels" in data and "normalisation" in spec):
        return data
    metadata, merged = metadata_of(model), dict(data)
    if metadata.normalisation:
        merged["input"] = {"normalisation": encode(metadata.normalisation), **spec}
    if metadata.labels:
        text = member_text(model, metadata.labels)
        merged.setdefault("labels", _classes(text, f"{model.path}: {metadata.labels}"))
    return merged


def _named(path: Path, model: ModelContent | None) -> list[dict[str, str]]:
    """Return the classes of a text file, else of that member of the model's archive."""
    if model is None or path.exists() or not has_archive(model):
        return _classes(_text(path), str(path))
    return _classes(member_text(model, path.name), f"{model.path}: {path.name}")


def has_archive(model: ModelContent) -> bool:
    """Return whether an archive lies behind a model."""
    from kedge_runtime.modelfile.archives import is_archive

    return is_archive(model.data)


def member_text(model: ModelContent, name: str) -> str:
    """Return a text member of the archive behind a model. Raises ContractError, ArtefactError."""
    from kedge_runtime.modelfile.archives import read_members

    with about(model.path):
        members = read_members(io.BytesIO(model.data))
        if name not in members:
            names = ", ".join(members) or "nothing"
            raise ContractError(f"no {name} in its archive, which holds {names}")
        with about(name):
            return _decoded(members[name])


def _classes(text: str, where: str) -> list[dict[str, str]]:
    from kedge_runtime.artefact.labels import BLANKS, without_numbers

    lines = text.rstrip().split("\n") if text.strip() else []
    labels = []
    for number, line in enumerate(lines, 1):
        with about(f"{where}:{number}"):
            labels.append(Label(id=line.strip(BLANKS), name=line.strip(BLANKS)))
    return [encode(label) for label in without_numbers(tuple(labels))]


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError:
        raise ContractError(f"{path}: isn't UTF-8 text") from None
    except OSError as error:
        raise ContractError(f"{path}: {reason_of(error)}") from None


def _decoded(content: bytes) -> str:
    try:
        # -sig: Windows editors put a byte order mark before the first word.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ContractError("isn't UTF-8 text") from None


ZIP = ".zip"
TEACHABLE = frozenset({"model.tflite", "model_unquant.tflite", "model_edgetpu.tflite"})
LABELS = "labels.txt"


@dataclass(frozen=True)
class ModelFile:
    """A model file, or the model of a zip.

    `labels`: those in the zip. `pipeline`: the one that its origin implies. `origin`: the name of
    that origin, for messages.
    """

    content: ModelContent
    labels: tuple[Label, ...] = ()
    pipeline: Pipeline | None = None
    origin: str = ""

    @property
    def name(self) -> str:
        """The path as the user wrote it."""
        return str(self.content.path)

    @property
    def unpacked(self) -> bool:
        """Whether it comes from a zip."""
        return is_zip(self.content.path)


def is_zip(path: Path) -> bool:
    """Return whether a file's name says that it is a zip."""
    return path.suffix.lower() == ZIP


def read_model(path: Path, trust: "Trust | None" = None) -> ModelFile:
    """Read a model file, or the model of a zip; `trust`: the required signature.

    Raises ArtefactError for another format, a missing file, and a zip that does not hold one model;
    SignatureError.
    """
    if not is_zip(path):
        return ModelFile(read_content(path, trust=trust))
    if trust is not None:
        raise SignatureError(f"{path}: a zip carries no signature, --key demands one")
    members = _members(path)
    name = _the_model(path, members)
    format = PurePosixPath(name).suffix.lower().lstrip(".")
    model = ModelContent(path, format, members[name])
    return _described(model, PurePosixPath(name).name, members)


def _members(path: Path) -> dict[str, bytes]:
    from kedge_runtime.modelfile.archives import read_members

    with file_errors(path), about(path):
        members = read_members(path)
    # macOS keeps metadata of each file beside it.
    return {name: each for name, each in members.items() if not name.startswith("__MACOSX/")}


def _the_model(path: Path, members: dict[str, bytes]) -> str:
    models = [name for name in members if name.lower().endswith((".tflite", ".onnx"))]
    if len(models) != 1:
        names = ", ".join(models or members) or "nothing"
        raise ArtefactError(
            f"{path}: a zip holds one .tflite or .onnx file, and this one holds {names}; "
            "unpack it and give the model"
        )
    return models[0]


def _described(model: ModelContent, name: str, members: dict[str, bytes]) -> ModelFile:
    texts = [each for each in members if PurePosixPath(each).name == LABELS]
    if len(texts) != 1:
        return ModelFile(model)
    from kedge_runtime.artefact.labels import parse, without_numbers

    where = f"{model.path}: {LABELS}"
    try:
        text = members[texts[0]].decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ArtefactError(f"{where}: isn't UTF-8 text; give --labels FILE") from None
    numbered = parse(text, where, repeated=True)
    labels = without_numbers(numbered)
    # Numbers from 0 before the names, and the model's own name: no other program packs them so.
    if name in TEACHABLE and labels != numbered:
        pipeline = PIPELINES["teachable_machine"]
        return ModelFile(model, labels, pipeline, "Teachable Machine's zip")
    return ModelFile(model, labels)
