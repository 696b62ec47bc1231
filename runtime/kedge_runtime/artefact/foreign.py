"""Open model files that kedge did not make.

The user states what they lack; the file and the engine tell the rest. A zip may hold the model
beside its labels.
"""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.artefact.contract import Contract, Label, Tensor
from kedge_runtime.artefact.file import Artefact, ends_in_digest
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.labels import BLANKS, parse, without_numbers
from kedge_runtime.engines.base import Engine
from kedge_runtime.errors import ArtefactError, ContractError, SignatureError, reason_of
from kedge_runtime.files import read_text
from kedge_runtime.image.pipelines import PIPELINES, Pipeline
from kedge_runtime.modelfile import tflite_metadata
from kedge_runtime.modelfile.archives import is_archive, read_members
from kedge_runtime.records import encode

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

# What a file says of itself, by format; ONNX has no convention for it.
METADATA = {"tflite": tflite_metadata.read}


@dataclass(frozen=True)
class ForeignFacts:
    """What a person says of foreign files: a contract as JSON, in parts, and where it lies."""

    path: Path
    data: Any

    def contract(self, model: ModelContent | None = None) -> Contract:
        """Return the contract; what it leaves out is taken from the model's own metadata.

        Raises ContractError for a key that is missing or wrong, ArtefactError for metadata that
        can't be read.
        """
        data = self.data
        if isinstance(data, dict) and model is not None:
            data = _with_metadata(data, model)
        if isinstance(data, dict) and isinstance(data.get("labels"), str):
            data = {**data, "labels": _named(self.path.parent / data["labels"], model)}
        try:
            return Contract.from_json(json.dumps(data))
        except ContractError as error:
            raise ContractError(f"{self.path}: {error}") from None


def read_facts(path: Path) -> ForeignFacts:
    """Read what a person says, a JSON file. Raises ContractError for one that can't be read."""
    try:
        return ForeignFacts(path, json.loads(_text(path)))
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: no JSON: {error}") from None


def read_contract(path: Path, model: Path | None = None) -> Contract:
    """Read a contract from a JSON file (docs/contract.md), for `model` if that is given.

    `labels` may be the name of a text file with a class a line, numbered or not, beside the
    contract or in the archive behind the model. A .tflite model's TFLite Metadata tells
    normalisation and labels where the contract leaves them out. Raises ContractError for a file
    that can't be read and for a key that is missing or wrong, ArtefactError for a model whose
    metadata is damaged.
    """
    return read_facts(path).contract(read_content(model) if model else None)


def unsealed(content: ModelContent, contract: Contract) -> Artefact:
    """Return a foreign file with a person's contract. Raises ArtefactError for a sealed one."""
    if ends_in_digest(content.data):
        raise ArtefactError(f"{content.path}: carries its own contract: leave the other one out")
    return Artefact(content.path, contract, Golden.none(), digest="")


def complete(artefact: Artefact, engine: Engine) -> Artefact:
    """Fill in what the contract leaves out: tensors from the engine, numbers for names."""
    contract = artefact.contract
    taken, given = contract.input, contract.output
    filled = replace(
        contract,
        input=replace(taken, tensor=_stated(taken.tensor, engine.input)),
        output=replace(given, tensor=_stated(given.tensor, engine.output)),
        labels=contract.labels or _numbers(contract, engine),
    )
    return replace(artefact, contract=filled)


def _stated(tensor: Tensor, engines: Tensor) -> Tensor:
    return engines if tensor == Tensor() else tensor


def _numbers(contract: Contract, engine: Engine) -> tuple[Label, ...]:
    if contract.output.kind == "features":
        return ()
    count = engine.output_shape[-1] - contract.output.label_offset
    return tuple(Label(str(i), f"class {i}") for i in range(count))


def _with_metadata(data: dict[str, Any], model: ModelContent) -> dict[str, Any]:
    """Return the facts with what the model says of itself; a person's word goes first."""
    read, taken = METADATA.get(model.format), data.get("input")
    if not (read and isinstance(taken, dict)) or ("labels" in data and "normalisation" in taken):
        return data
    found, told = read(model), dict(data)
    if found.normalisation:
        told["input"] = {"normalisation": encode(found.normalisation), **taken}
    if found.labels:
        text = member_text(model, found.labels)
        told.setdefault("labels", _classes(text, f"{model.path}: {found.labels}"))
    return told


def _named(path: Path, model: ModelContent | None) -> list[dict[str, str]]:
    """Return the classes of a text file, or of a model's archive where there is no such file."""
    if model is None or path.exists() or not has_archive(model):
        return _classes(_text(path), str(path))
    return _classes(member_text(model, path.name), f"{model.path}: {path.name}")


def has_archive(model: ModelContent) -> bool:
    """Whether an archive lies behind a model."""
    return is_archive(model.data)


def member_text(model: ModelContent, name: str) -> str:
    """Return a text of the archive behind a model. Raises ContractError, ArtefactError."""
    members = read_members(io.BytesIO(model.data), str(model.path))
    if name not in members:
        there = ", ".join(members) or "nothing"
        raise ContractError(f"{model.path}: no {name} in its archive, which holds {there}")
    return _decoded(members[name], f"{model.path}: {name}")


def _classes(text: str, where: str) -> list[dict[str, str]]:
    lines = text.rstrip().split("\n") if text.strip() else []
    labels = tuple(_label(line.strip(BLANKS), f"{where}:{i}") for i, line in enumerate(lines, 1))
    return [encode(label) for label in without_numbers(labels)]


def _label(name: str, where: str) -> Label:
    try:
        return Label(id=name, name=name)
    except ContractError as error:
        raise ContractError(f"{where}: {error}") from None


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError:
        raise ContractError(f"{path}: isn't UTF-8 text") from None
    except OSError as error:
        raise ContractError(f"{path}: {reason_of(error)}") from None


def _decoded(content: bytes, where: str) -> str:
    try:
        # -sig: Windows editors put a byte order mark before the first word.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ContractError(f"{where}: isn't UTF-8 text") from None


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
