"""Why Keras can't load a file, in one line that names what is missing and the way round.

Keras's own line quotes configurations by the page, and recommends options that kedge hasn't: it
runs no code that a file brings along, and has none of the user's own.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedge_convert.sources.hdf5 import is_hdf5
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line

# What Keras can't build from a file is no obstacle to a SavedModel, which holds the graph.
REMEDY = "where it was trained, save it with model.export('folder'), and give that folder"
# Keras 3: Could not locate class 'Mine'. Keras 2's files: Unknown layer: 'Mine'.
_MISSING = re.compile(r"Could not locate (\w+) '([^']+)'|Unknown ([\w ]+): '([^']+)'")


def refusal(path: Path, error: Exception) -> UsageError:
    """Return the one line for a file that Keras can't load, stumbling over `error`."""
    version = f"Keras {require('keras').__version__}"
    if names := list(_lambdas(_configuration(path))):
        word, verb = ("layer", "is") if len(names) == 1 else ("layers", "are")
        listed = ", ".join(map(repr, names))
        return UsageError(
            f"{path}: its Lambda {word} {listed} {verb} Python code, which kedge doesn't run; "
            f"{REMEDY}"
        )
    # The last is the innermost: Keras wraps the message once a nesting.
    if found := _MISSING.findall(str(error)):
        kind, name = (part for part in found[-1] if part)
        return UsageError(
            f"{path}: needs the {kind} {name!r} of its author's own, which isn't in {version}; "
            f"{REMEDY}"
        )
    return UsageError(f"{path}: {version} can't load it: {one_line(error, 300)}; {REMEDY}")


def _configuration(path: Path) -> Any:
    """Return the configuration in a file, nothing when there is none that can be read."""
    try:
        if is_hdf5(path):
            with require("h5py").File(path) as file:
                return json.loads(file.attrs["model_config"])
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except (KeyError, OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        return None


def _lambdas(config: Any) -> Iterator[str]:
    """Yield the names of the Lambda layers whose function is Python's byte code."""
    if isinstance(config, dict):
        match config:
            case {"class_name": "Lambda", "config": {"name": name, "function": function}}:
                if _is_code(function):
                    yield str(name)
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _lambdas(each)


def _is_code(function: Any) -> bool:
    """Keras 3 writes a dictionary of it, Keras 2 a list; a function's name is no code."""
    written = isinstance(function, dict) and function.get("class_name") == "__lambda__"
    return written or isinstance(function, list)
