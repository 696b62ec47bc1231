"""Weights without a model: `.weights.h5` of Keras 3 and 2.13, and the older `.h5` by layer order.

keras.applications itself distributes the older kind. A whole model's `.h5` or `.keras` will do too.
"""

from pathlib import Path
from typing import Any

from kedge_convert.sources import layer_names
from kedge_convert.sources.hdf5 import is_hdf5, refuse_links
from kedge_convert.sources.links import called
from kedge_convert.toolkit import quiet, require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.files import temporary_folder

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
        copy.write_bytes(layer_names.today(path.read_bytes()))
        model.load_weights(copy)


def _by_layer_order(path: Path) -> bool:
    with require("h5py").File(path) as file:
        return "layer_names" in file.attrs or "model_weights" in file
