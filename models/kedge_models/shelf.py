"""Records kept as TOML files, one a file: how a folder of them is read, and one found by name."""

import difflib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeVar

from kedge_models.toml import load
from kedge_runtime.errors import UsageError
from kedge_runtime.records import decode

Record = TypeVar("Record")


def texts(folder: str) -> dict[str, str]:
    """Return the files of a folder of this package by their name, in alphabetical order."""
    found = {
        item.name.removesuffix(".toml"): item.read_text(encoding="utf-8")
        for item in files("kedge_models").joinpath(folder).iterdir()
        if item.name.endswith(".toml")
    }
    return {name: found[name] for name in sorted(found, key=str.lower)}


def parse(kind: type[Record], text: str, where: str, **defaults: Any) -> Record:
    """Read one record from TOML. Raises ContractError, headed by `where`."""
    return decode(kind, {**defaults, **load(text, where)}, where)


def pick(name: str, known: Mapping[str, Record], what: str, remedy: str) -> Record:
    """Return the record called `name` in any case. Raises UsageError with the closest names."""
    by_key = {key.lower(): key for key in known}
    if key := by_key.get(name.lower()):
        return known[key]
    closest = [by_key[key] for key in difflib.get_close_matches(name.lower(), by_key)]
    hint = f"did you mean {' or '.join(closest)}? " if closest else ""
    raise UsageError(f"no {what} called {name!r}: {hint}{remedy}")
