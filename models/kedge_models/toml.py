"""Read TOML of unknown origin: bounded before it is parsed, checked after, one record a file."""

import difflib
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from kedge_runtime.errors import ContractError, UsageError, one_line, reason_of
from kedge_runtime.records import decode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20  # a lock of 5000 artefacts
MAX_DOTS = 100  # in a line that isn't a comment; kedge's keys have three parts at most
MAX_DEPTH = 16
_INTEGERS = range(-(2**63), 2**63)  # TOML 1.0: other integers are an error


def read(path: Path, remedy: str) -> str:
    """Return the text of a file. Raises UsageError that ends in `remedy`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UsageError(f"{path}: has more than {MAX_BYTES} bytes; {remedy}")
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({reason_of(error)}); {remedy}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is no UTF-8 text (byte {error.start}); {remedy}") from None


def load(text: str, where: str) -> dict[str, Any]:
    """Return the data of a TOML text. Raises ContractError that starts with `where`."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS and not line.lstrip().startswith("#"):
            raise ContractError(f"{where}: more than {MAX_DOTS} dots in line {number}; shorten it")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(where) from None
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{where}: {one_line(error)}") from None
    except ValueError:  # Python's own bound on the digits of an integer
        raise _too_large(where) from None
    _check(data, where)
    return data


def _check(data: dict[str, Any], where: str) -> None:
    """Refuse values that the records' type hints allow, but that can't be printed or opened."""
    left: list[tuple[Any, int]] = [(data, 0)]
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise _too_deep(where)
        if isinstance(value, dict):
            left += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            left += [(each, depth + 1) for each in value]
        elif isinstance(value, str) and "\0" in value:
            raise ContractError(f"{where}: a text holds the character NUL; take it out")
        elif isinstance(value, int) and value not in _INTEGERS:
            raise _too_large(where)


def _too_large(where: str) -> ContractError:
    return ContractError(f"{where}: an integer of more than 64 bits; write a smaller one")


def _too_deep(where: str) -> ContractError:
    return ContractError(
        f"{where}: more than {MAX_DEPTH} tables or lists in each other; take some out"
    )


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
    """Read one record from TOML. Raises ContractError that starts with `where`."""
    return decode(kind, {**defaults, **load(text, where)}, where)


def pick(name: str, known: Mapping[str, Record], what: str, remedy: str) -> Record:
    """Return the record called `name` in any case. Raises UsageError with the closest names."""
    by_key = {key.lower(): key for key in known}
    if key := by_key.get(name.lower()):
        return known[key]
    closest = [by_key[key] for key in difflib.get_close_matches(name.lower(), by_key)]
    hint = f"did you mean {' or '.join(closest)}? " if closest else ""
    raise UsageError(f"no {what} called {name!r}: {hint}{remedy}")
