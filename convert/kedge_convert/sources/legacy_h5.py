"""A whole model in an HDF5 file, as Keras 1 and 2 saved them and Keras 3 still can."""

import json
from pathlib import Path
from typing import Any

from kedge_convert.sources import keras_file, repairs, weights_file
from kedge_convert.sources.found import Found, Request
from kedge_convert.sources.hdf5 import is_hdf5
from kedge_convert.sources.refusal import refusal
from kedge_convert.toolkit import quiet, require
from kedge_runtime.errors import UsageError

holds = is_hdf5


def load(request: Request) -> Found:
    """Load a legacy file, mended where Keras 3 has changed. Raises UsageError when that fails."""
    path = Path(request.model)
    version, config = _read(path)
    if not version.startswith(("1.", "2.")):
        return Found(path.stem, keras_file.load_file(path))
    try:
        with quiet():
            model = _rebuilt(repairs.repaired(config))
            weights_file.fill(model, path)
    # Keras lets whatever it stumbles over through; here it stumbled over the user's file.
    except Exception as error:
        raise refusal(path, error) from error
    return Found(path.stem, model)


def _read(path: Path) -> tuple[str, Any]:
    """Return the version of Keras that saved the file, and the model's configuration."""
    try:
        with require("h5py").File(path) as file:
            version, config = (file.attrs.get(key) for key in ("keras_version", "model_config"))
            only_weights = "layers" in file or "layer_names" in file.attrs
    except (OSError, RuntimeError) as error:
        raise refusal(path, error) from error
    if config is None:
        raise UsageError(f"{path}: {_WEIGHTS_ONLY if only_weights else _NO_MODEL}")
    return _text(version or "1."), json.loads(_text(config))


_NO_MODEL = "an HDF5 file without a Keras model in it; save yours with model.save('x.keras')"
_WEIGHTS_ONLY = (
    "holds weights without a model: name the application they belong to as MODEL, "
    "and give the file as --weights"
)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _rebuilt(config: Any) -> Any:
    """Return the model of a repaired configuration, without its weights."""
    keras = require("keras")
    roots = {"Sequential": keras.Sequential}
    return roots.get(config["class_name"], keras.Model).from_config(config["config"])
