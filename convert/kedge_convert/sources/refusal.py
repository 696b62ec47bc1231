"""Why Keras can't load a file, in one line that names what is missing and the way round.

Keras's own line quotes configurations by the page, and recommends options that kedge hasn't: it
runs no code that a file brings along, and has none of the user's own.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

from kedge_convert.sources import configuration
from kedge_convert.sources.hdf5 import is_hdf5
from kedge_convert.sources.screening import REMEDY, refuse_lambdas
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line

# Keras 3: Could not locate class 'Mine'. Keras 2's files: Unknown layer: 'Mine'; tf_keras's: object
# of type `Mine`.
_MISSING = re.compile(
    r"Could not locate (\w+) '([^']+)'|Unknown ([\w ]+): '([^']+)'|object of (type) `([^`]+)`"
)

_NAMES = {"keras": "Keras", "tf_keras": "tf_keras"}
# Names of options that would let a file run code: Keras's, numpy's, and TensorFlow's.
_ADVICE = re.compile(r"safe_mode|unsafe|allow_pickle|weights_only|at your own risk", re.IGNORECASE)


def refusal(path: Path, error: Exception, library: str = "keras") -> UsageError:
    """Return the one line for a file that keras or tf_keras can't load, stumbling over `error`."""
    version = f"{_NAMES[library]} {require(library).__version__}"
    refuse_lambdas(path, content_of(path))
    # The last is the innermost: Keras wraps the message once a nesting.
    if found := _MISSING.findall(str(error)):
        kind, name = (part for part in found[-1] if part)
        return UsageError(
            f"{path}: needs the {kind} {name!r} of its author's own, which isn't in {version}; "
            f"{REMEDY}"
        )
    return UsageError(f"{path}: {version} can't load it: {_without_advice(error)}; {REMEDY}")


def _without_advice(error: Exception) -> str:
    """Return an error in one line, without the sentences that advise to load what isn't safe."""
    sentences = re.split(r"(?<=[.!;:])\s+", one_line(error, 2000))
    kept = [each for each in sentences if not _ADVICE.search(each)]
    return one_line(ValueError(" ".join(kept)), 300).rstrip(".;:") or type(error).__name__


def content_of(path: Path) -> Any:
    """Return the configuration in a file, None when there is none that can be read."""
    read = configuration.of_hdf5 if is_hdf5(path) else configuration.of_archive
    try:
        return read(path).content
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        return None
