"""Refuse configurations that name code: Keras 2 would import and run it while it loads a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedge_convert.sources.tfmot import STRIPPED, stand_ins
from kedge_runtime.errors import UsageError

# A graph holds no Python, and each of its operations is checked (programs.py).
REMEDY = (
    "export its graph where it was trained, model.export('folder'): kedge loads graphs that only "
    "compute"
)
# Where a class may come from; tfmot's have stand-ins (tfmot.py).
_MODULES = ("keras", "tf_keras", "tensorflow.keras", "builtins", "tensorflow_model_optimization")
# TensorFlow's functions that compute, by what their names begin with. Others read and write files.
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


def screen(path: Path, config: Any) -> None:
    """Raise UsageError for a configuration with code, or with classes of other modules."""
    refuse_unsafe(path, config)
    known = stand_ins()
    for layer in objects(config):
        module, name = layer.get("module"), layer["class_name"]
        if name in STRIPPED:
            raise UsageError(
                f"{path}: holds wrappers of tfmot ({name}), which serve training: save "
                f"{STRIPPED[name]} where it was trained, and give that file"
            )
        if name not in known and (_is_registered(layer) or not _is_of(module, _MODULES)):
            raise UsageError(f"{path}: {_own(layer)}")
        function = layer["config"].get("function") if name in _CALLING else None
        if function is not None and not _computes(str(function)):
            raise UsageError(
                f"{path}: calls TensorFlow's function {function}, which kedge doesn't run from a "
                f"file; {REMEDY}"
            )


def refuse_unsafe(path: Path, config: Any) -> None:
    """Raise UsageError for Python's byte code, and for layers that read another file."""
    refuse_lambdas(path, config)
    for layer in objects(config):
        settings = layer.get("config")
        vocabulary = settings.get("vocabulary") if isinstance(settings, dict) else None
        if layer["class_name"] == "TFSMLayer" or isinstance(vocabulary, str):
            name = str(layer["class_name"])[:60]
            raise UsageError(
                f"{path}: its layer {name!r} reads another file, and kedge reads none that a model "
                f"names; {REMEDY}"
            )


def refuse_lambdas(path: Path, config: Any) -> None:
    """Raise UsageError for Lambda layers whose function is Python's byte code."""
    if names := list(_lambdas(config)):
        word, verb = ("layer", "is") if len(names) == 1 else ("layers", "are")
        raise UsageError(
            f"{path}: its Lambda {word} {', '.join(map(repr, names))} {verb} Python code, which "
            f"kedge doesn't run; {REMEDY}"
        )


def _own(part: dict[str, Any]) -> str:
    is_function = part["class_name"] == "function"
    what, name = ("function", part["config"]) if is_function else ("class", part["class_name"])
    return f"needs the {what} {name!r} of its author's own, which isn't in Keras; {REMEDY}"


def _is_registered(part: dict[str, Any]) -> bool:
    """Whether the author registered it, under a package of their own: `my>Mine`."""
    return ">" in str(part.get("registered_name"))


def _is_of(module: Any, roots: tuple[str, ...]) -> bool:
    if not module:
        return True
    return module in roots or str(module).startswith(tuple(f"{root}." for root in roots))


def _computes(function: str) -> bool:
    name = function.removeprefix("compat.v1.")
    return name.startswith(_COMPUTING) or name in _FUNCTIONS


def objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a configuration that names a class, nested ones too, however deep."""
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
        found = layer.get("config")
        if layer["class_name"] == "Lambda" and found and _is_code(found.get("function")):
            yield str(found.get("name"))


def _is_code(function: Any) -> bool:
    """Keras 3 writes a dictionary of it, Keras 2 a list; a function's name is no code."""
    written = isinstance(function, dict) and function.get("class_name") == "__lambda__"
    return written or isinstance(function, list)
