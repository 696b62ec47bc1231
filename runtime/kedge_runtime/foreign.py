"""Files that kedge didn't make: a person says what they don't carry, file and engine the rest.

Nothing is guessed: how pixels become the input and what the output means must be stated.
"""

import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kedge_runtime import tflite_metadata
from kedge_runtime.artefact import Artefact, ends_in_digest
from kedge_runtime.content import ModelContent, read_content
from kedge_runtime.contract import Contract, Label, Tensor
from kedge_runtime.engines.base import Engine
from kedge_runtime.errors import ArtefactError, ContractError, reason_of
from kedge_runtime.golden import Golden
from kedge_runtime.labels import without_numbers
from kedge_runtime.records import encode
from kedge_runtime.zips import read_members

# What a file says of itself, by format; ONNX has no convention for it.
METADATA = {"tflite": tflite_metadata.read}


@dataclass(frozen=True)
class Facts:
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


def read_facts(path: Path) -> Facts:
    """Read what a person says, a JSON file. Raises ContractError for one that can't be read."""
    try:
        return Facts(path, json.loads(_text(path)))
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
        told.setdefault("labels", _classes(member_text(model, found.labels)))
    return told


def _named(path: Path, model: ModelContent | None) -> list[dict[str, str]]:
    """Return the classes of a text file, or of a model's archive where there is no such file."""
    if model is None or path.exists() or not has_archive(model):
        return _classes(_text(path))
    return _classes(member_text(model, path.name))


def has_archive(model: ModelContent) -> bool:
    """Whether an archive lies behind a model."""
    return zipfile.is_zipfile(io.BytesIO(model.data))


def member_text(model: ModelContent, name: str) -> str:
    """Return a text of the archive behind a model. Raises ContractError, ArtefactError."""
    members = read_members(io.BytesIO(model.data), str(model.path))
    if name not in members:
        there = ", ".join(members) or "nothing"
        raise ContractError(f"{model.path}: no {name} in its archive, which holds {there}")
    return _decoded(members[name], f"{model.path}: {name}")


def _classes(text: str) -> list[dict[str, str]]:
    lines = map(str.strip, text.splitlines())
    labels = without_numbers(tuple(Label(id=line, name=line) for line in lines))
    return [encode(label) for label in labels]


def _text(path: Path) -> str:
    try:
        return _decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise ContractError(f"{path}: {reason_of(error)}") from None


def _decoded(content: bytes, where: str) -> str:
    try:
        # -sig: Windows editors put a byte order mark before the first word.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ContractError(f"{where}: isn't UTF-8 text") from None
