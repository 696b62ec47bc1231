"""Read a saved model's configuration, refuse code in it, and explain why Keras can't load it."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_convert.load.tfmot import STRIPPED, stand_ins
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.files import temporary_folder
from kedge_runtime.modelfile.archives import FAULTS, opened


@contextmanager
def linked_as(path: Path, name: str) -> Iterator[Path]:
    """Yield a link to a file under another name: Keras chooses its reader by the suffix."""
    with temporary_folder() as folder:
        link = folder / name
        link.symlink_to(path.resolve())
        yield link


# https://docs.hdfgroup.org/hdf5/v1_14/_f_m_t3.html, superblock
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def refuse_links(path: Path, content: bytes | None = None) -> None:
    """Raise UsageError for an HDF5 file that keeps a part of itself in other files.

    HDF5 reads every file that its links, external arrays and virtual arrays name. `content`: the
    HDF5 member of an archive at `path`. Raises what h5py does for damaged files.
    """
    h5py = require("h5py")
    with h5py.File(path if content is None else io.BytesIO(content)) as file:
        waiting, seen = [file["/"]], set[int]()
        while waiting:
            for name, item in _linked(path, waiting.pop()):
                if (address := h5py.h5o.get_info(item.id).addr) in seen:
                    continue
                seen.add(address)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                    raise _elsewhere(path, name)


def _linked(path: Path, group: Any) -> Iterator[tuple[str, Any]]:
    """Yield a group's items without soft links, which stay in the file."""
    h5py = require("h5py")
    for name in group:
        kind = group.get(name, getlink=True, getclass=True)
        if kind is h5py.ExternalLink:
            raise _elsewhere(path, name)
        if kind is h5py.HardLink:
            yield str(name), group[name]


def _elsewhere(path: Path, name: str) -> UsageError:
    return UsageError(
        f"{path.name} keeps {name[:60]!r} in another file, and kedge reads none that a model "
        "names: save it whole, model.save('x.keras')"
    )


CONFIG = "config.json"  # its member of a .keras archive


@dataclass(frozen=True)
class Configuration:
    """The JSON from which Keras builds a model, and the Keras version that wrote it.

    `content`: None where the file has none. `only_weights`: an HDF5 file without a model.
    """

    version: str
    content: Any
    only_weights: bool = False

    @property
    def is_keras_2(self) -> bool:
        """Whether Keras 1 or 2 saved it; only Keras 1 wrote no version."""
        return not self.version.startswith("3")


def of_hdf5(path: Path) -> Configuration:
    """Read an HDF5 file. Raises OSError, RuntimeError and ValueError for damaged ones."""
    with require("h5py").File(path) as file:
        version, content = (file.attrs.get(key) for key in ("keras_version", "model_config"))
        only_weights = "layers" in file or "layer_names" in file.attrs
    parsed = None if content is None else json.loads(_text(content))
    return Configuration(_text(version or "1."), parsed, only_weights)


def of_archive(path: Path) -> Configuration:
    """Read a `.keras` archive; a damaged one counts as Keras 3's, which refuses it."""
    try:
        with opened(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
            content = json.loads(archive.read(CONFIG))
    except (KeyError, *FAULTS):
        return Configuration("3", None)
    version = metadata.get("keras_version", "3") if isinstance(metadata, dict) else "3"
    return Configuration(str(version), content)


def of_json(path: Path) -> Configuration | None:
    """Read the output of `model.to_json()`; None for any other file."""
    try:
        with path.open("rb") as file:
            # Any file may come here, and be gigabytes.
            begin = file.read(1)
            content = json.loads(begin + file.read()) if begin == b"{" else None
    except (OSError, RecursionError, ValueError):
        return None
    if not isinstance(content, dict) or not {"class_name", "config"} <= set(content):
        return None
    # Keras 3 writes no version there.
    return Configuration(str(content.get("keras_version", "3")), content)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# A graph holds no Python, and each of its operations is checked (graph_safety.py).
REMEDY = (
    "export its graph where it was trained, model.export('folder'): kedge loads graphs that only "
    "compute"
)
# Allowed modules of classes; tfmot's have stand-ins (tfmot.py).
_MODULES = ("keras", "tf_keras", "tensorflow.keras", "builtins", "tensorflow_model_optimization")
# Prefixes of TensorFlow's functions that compute. Others read and write files.
_COMPUTING = ("math.", "nn.", "image.", "linalg.", "signal.", "__operators__.", "bitwise.")
# fmt: off
_FUNCTIONS = frozenset({
    "argmax", "argmin", "broadcast_to", "cast", "clip_by_value", "concat", "convert_to_tensor",
    "einsum", "expand_dims", "gather", "identity", "keras.backend.mean", "matmul", "norm",
    "ones_like", "pad", "repeat", "reshape", "reverse", "roll", "shape", "slice", "split",
    "squeeze", "stack", "stop_gradient", "strided_slice", "tensordot", "tile", "transpose",
    "unstack", "where", "zeros_like",
})
# fmt: on
_CALLING = ("TFOpLambda", "SlicingOpLambda")


def refuse_foreign(config: Any) -> None:
    """Raise UsageError for a configuration with code, or with classes of other modules."""
    refuse_unsafe(config)
    for layer in objects(config):
        _refuse_class(layer)
        function = layer["config"].get("function") if layer["class_name"] in _CALLING else None
        if function is not None and not _computes(str(function)):
            raise UsageError(
                f"calls TensorFlow's function {function}, which kedge doesn't run from a file; "
                f"{REMEDY}"
            )


def _refuse_class(layer: dict[str, Any]) -> None:
    name = layer["class_name"]
    if name in STRIPPED:
        raise UsageError(
            f"holds wrappers of tfmot ({name}), which serve training: save {STRIPPED[name]} where "
            "it was trained, and give that file"
        )
    is_foreign = _is_registered(layer) or not _is_of(layer.get("module"), _MODULES)
    if name not in stand_ins() and is_foreign:
        is_function = name == "function"
        what, own = ("function", layer["config"]) if is_function else ("class", name)
        raise UsageError(_missing(what, own, "Keras"))


def _missing(what: str, name: str, library: str) -> str:
    return f"needs the {what} {name!r} of its author's own, which isn't in {library}; {REMEDY}"


def refuse_unsafe(config: Any) -> None:
    """Raise UsageError for Python's byte code, and for layers that read another file."""
    refuse_lambdas(config)
    for layer in objects(config):
        settings = layer.get("config")
        vocabulary = settings.get("vocabulary") if isinstance(settings, dict) else None
        if layer["class_name"] == "TFSMLayer" or isinstance(vocabulary, str):
            name = str(layer["class_name"])[:60]
            raise UsageError(
                f"its layer {name!r} reads another file, and kedge reads none that a model names; "
                f"{REMEDY}"
            )


def refuse_lambdas(config: Any) -> None:
    """Raise UsageError for Lambda layers whose function is Python's byte code."""
    if names := list(_lambdas(config)):
        word, verb = ("layer", "is") if len(names) == 1 else ("layers", "are")
        raise UsageError(
            f"its Lambda {word} {', '.join(map(repr, names))} {verb} Python code, which kedge "
            f"doesn't run; {REMEDY}"
        )


def _is_registered(part: dict[str, Any]) -> bool:
    """Whether its author registered it under a package: `my>Mine`."""
    return ">" in str(part.get("registered_name"))


def _is_of(module: Any, roots: tuple[str, ...]) -> bool:
    if not module:
        return True
    return module in roots or str(module).startswith(tuple(f"{root}." for root in roots))


def _computes(function: str) -> bool:
    name = function.removeprefix("compat.v1.")
    return name.startswith(_COMPUTING) or name in _FUNCTIONS


def objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a configuration that names a class, at any depth."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class_name" in part and isinstance(part.get("config", {}), dict | str | None):
                yield part
            part = list(part.values())
        if isinstance(part, list):
            waiting += reversed(part)


def _lambdas(config: Any) -> Iterator[str]:
    """Yield the names of the Lambda layers whose function is Python's byte code."""
    for layer in objects(config):
        settings = layer.get("config")
        if layer["class_name"] == "Lambda" and settings and _is_code(settings.get("function")):
            yield str(settings.get("name"))


def _is_code(function: Any) -> bool:
    """Recognise code: Keras 3 writes a dictionary, Keras 2 a list, and a name is no code."""
    of_keras_3 = isinstance(function, dict) and function.get("class_name") == "__lambda__"
    return of_keras_3 or isinstance(function, list)


# Keras 3: Could not locate class 'Mine'. Keras 2's files: Unknown layer: 'Mine'; tf_keras's: object
# of type `Mine`.
_UNKNOWN_CLASS = re.compile(
    r"Could not locate (\w+) '([^']+)'|Unknown ([\w ]+): '([^']+)'|object of (type) `([^`]+)`"
)

_NAMES = {"keras": "Keras", "tf_keras": "tf_keras"}
# Names of options that would let a file run code: Keras's, numpy's, and TensorFlow's.
_ADVICE = re.compile(r"safe_mode|unsafe|allow_pickle|weights_only|at your own risk", re.IGNORECASE)


def refusal(path: Path, error: Exception, library: str = "keras") -> UsageError:
    """Return one line on why keras or tf_keras can't load a file. Raises it for Lambda layers."""
    version = f"{_NAMES[library]} {require(library).__version__}"
    refuse_lambdas(content_of(path))
    # The last is the innermost: Keras wraps the message once a nesting.
    if matches := _UNKNOWN_CLASS.findall(str(error)):
        kind, name = (part for part in matches[-1] if part)
        return UsageError(_missing(kind, name, version))
    return UsageError(f"{version} can't load it: {_without_advice(error)}; {REMEDY}")


def _without_advice(error: Exception) -> str:
    """Return an error in one line, without sentences that advise to load unsafe files."""
    sentences = re.split(r"(?<=[.!;:])\s+", one_line(error, 2000))
    kept = [each for each in sentences if not _ADVICE.search(each)]
    return one_line(ValueError(" ".join(kept)), 300).rstrip(".;:") or type(error).__name__


def content_of(path: Path) -> Any:
    """Return the configuration in a file, None when it has no readable one."""
    read = of_hdf5 if is_hdf5(path) else of_archive
    try:
        return read(path).content
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        return None
