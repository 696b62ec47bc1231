"""Load weights from HDF5 files, whatever Keras named its layers when it wrote them."""

import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kedge_convert.load.configuration import called, is_hdf5, refuse_links
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.files import temporary_folder
from kedge_runtime.output import quiet

_OLD_LAYERS = "_layer_checkpoint_dependencies"


def today(weights: bytes) -> bytes:
    """Return HDF5 weights under the names that Keras looks for; most files as they are.

    TensorFlow 2.12 called a model's layers something else, and counted those with weights twice:
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
    """Return the names of layers with those of one kind counted without gaps: dense, dense_1."""
    kinds = defaultdict[str, list[tuple[int, str]]](list)
    for name in names:
        kind, _, number = name.rpartition("_")
        kind, number = (kind, number) if number.isdecimal() else (name, "0")
        kinds[kind].append((int(number), name))
    return {
        name: f"{kind}_{i}" if i else kind
        for kind, found in kinds.items()
        for i, (_, name) in enumerate(sorted(found))
    }


# What to do with weights alone.
WHOLE = "build the model in its program, model.load_weights(...), then model.save('model.keras')"


def load_into(model: Any, path: Path, what: str) -> None:
    """Load a file's weights into `model`, called `what`. Raises UsageError when they don't fit."""
    if not path.is_file():
        raise UsageError(f"--weights: {path}: no such file (or say imagenet or none)")
    try:
        fill(model, path)
    except UsageError:
        raise
    # Keras lets whatever it stumbles over through; here it stumbled over the user's file.
    except Exception as error:
        reason = one_line(error, 300)
        raise UsageError(f"--weights: {path} doesn't fit {what}: {reason}") from error


def fill(model: Any, path: Path) -> None:
    """Load a file's weights into `model`.

    Raises whatever Keras does, and UsageError for a file that reads others.
    """
    if is_hdf5(path):
        refuse_links(path)
    if is_hdf5(path) and not _by_layer_order(path):
        _fill_by_name(model, path)
        return
    with quiet(), called(path, "old.h5" if is_hdf5(path) else "model.keras") as link:
        model.load_weights(link)


def _fill_by_name(model: Any, path: Path) -> None:
    with quiet(), temporary_folder() as folder:
        copy = folder / "new.weights.h5"
        copy.write_bytes(today(path.read_bytes()))
        model.load_weights(copy)


def _by_layer_order(path: Path) -> bool:
    with require("h5py").File(path) as file:
        return "layer_names" in file.attrs or "model_weights" in file
