"""Load weights from HDF5 files, with old and new names of layers."""

import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kedge_convert.load.configuration import is_hdf5, linked_as, refuse_links
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.files import temporary_folder
from kedge_runtime.output import quiet

_OLD_LAYERS = "_layer_checkpoint_dependencies"


def with_current_names(weights: bytes) -> bytes:
    """Return HDF5 weights under the names that Keras looks for; most files are unchanged.

    TensorFlow 2.12 used another name for a model's layers, and counted those with weights twice:
    dense, dense_2, dense_4.
    """
    if _OLD_LAYERS.encode() not in weights:
        return weights
    h5py, changed = require("h5py"), io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as old, h5py.File(changed, "w") as new:
        _copy(old, new)
    return changed.getvalue()


def _copy(old: Any, new: Any, are_layers: bool = False) -> None:
    """Copy an HDF5 group into another; `are_layers`: its members are the layers of a model."""
    names = _counted(old) if are_layers else {name: name for name in old}
    for name, item in old.items():
        if hasattr(item, "keys"):
            target = "layers" if name == _OLD_LAYERS else names[name]
            _copy(item, new.create_group(target), name in (_OLD_LAYERS, "layers"))
        else:
            old.copy(name, new, names[name])


def _counted(names: Iterable[str]) -> dict[str, str]:
    """Return new names of layers by the old ones, counted without gaps: dense, dense_1."""
    kinds = defaultdict[str, list[tuple[int, str]]](list)
    for name in names:
        kind, _, number = name.rpartition("_")
        kind, number = (kind, number) if number.isdecimal() else (name, "0")
        kinds[kind].append((int(number), name))
    return {
        name: f"{kind}_{i}" if i else kind
        for kind, numbered in kinds.items()
        for i, (_, name) in enumerate(sorted(numbered))
    }


# The remedy for weights without a model.
WHOLE = "build the model in its program, model.load_weights(...), then model.save('model.keras')"


def load_into(model: Any, path: Path, what: str) -> None:
    """Load a file's weights into `model`; messages call it `what`.

    Raises UsageError when they don't fit.
    """
    if not path.is_file():
        raise UsageError(f"--weights: {path}: no such file (or say imagenet)")
    try:
        fill(model, path)
    except UsageError:
        raise
    # Keras raises whatever the user's file causes.
    except Exception as error:
        reason = one_line(error, 300)
        raise UsageError(f"--weights: {path} doesn't fit {what}: {reason}") from error


def fill(model: Any, path: Path) -> None:
    """Load a file's weights into `model`.

    Raises whatever Keras does, and UsageError for a file with links to others.
    """
    if is_hdf5(path):
        refuse_links(path)
    if is_hdf5(path) and not _by_layer_order(path):
        _fill_by_name(model, path)
        return
    with quiet(), linked_as(path, "old.h5" if is_hdf5(path) else "model.keras") as link:
        model.load_weights(link)


def _fill_by_name(model: Any, path: Path) -> None:
    with quiet(), temporary_folder() as folder:
        copy = folder / "new.weights.h5"
        copy.write_bytes(with_current_names(path.read_bytes()))
        model.load_weights(copy)


def _by_layer_order(path: Path) -> bool:
    with require("h5py").File(path) as file:
        return "layer_names" in file.attrs or "model_weights" in file
