"""Files that kedge didn't make: a person says what they don't carry, the engine says the rest.

Nothing is guessed: how pixels become the input and what the output means must be stated.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kedge_runtime.artefact import Artefact, format_of, is_sealed
from kedge_runtime.contract import Contract, Label, Tensor
from kedge_runtime.engines.base import Engine
from kedge_runtime.errors import ArtefactError, ContractError
from kedge_runtime.golden import Golden


def read_contract(path: Path) -> Contract:
    """Read a contract from a JSON file (docs/contract.md).

    `labels` may be the name of a text file beside it with a class a line, or be left out. Raises
    ContractError for a file that can't be read and for a key that is wrong.
    """
    try:
        data = json.loads(_text(path))
    except ValueError as error:
        raise ContractError(f"{path}: no JSON: {error}") from None
    if isinstance(data, dict) and isinstance(data.get("labels"), str):
        data["labels"] = _labels(path.parent / data["labels"])
    try:
        return Contract.from_json(json.dumps(data))
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from None


def for_unsealed(path: Path, contract: Contract | None) -> Contract | None:
    """Return a person's contract for a file that carries none, and None for a sealed one."""
    format_of(path)
    return None if contract is None or is_sealed(path) else contract


def unsealed(path: Path, contract: Contract) -> Artefact:
    """Return a foreign file with a person's contract. Raises ArtefactError for a sealed one."""
    format_of(path)
    if is_sealed(path):
        raise ArtefactError(f"{path}: carries its own contract: leave the other one out")
    return Artefact(path, contract, Golden.none(), digest="")


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


def _labels(path: Path) -> list[dict[str, Any]]:
    lines = _text(path).splitlines()
    return [{"id": line.strip(), "name": line.strip()} for line in lines]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise ContractError(f"{path}: isn't UTF-8 text") from None
