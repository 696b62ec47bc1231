"""A whole model in an HDF5 file, as Keras 1, 2 and 3 save them."""

from pathlib import Path

from kedge_convert.sources import configuration, keras2, keras_file
from kedge_convert.sources.configuration import Configuration
from kedge_convert.sources.found import Found, Request
from kedge_convert.sources.hdf5 import is_hdf5
from kedge_convert.sources.refusal import refusal
from kedge_runtime.errors import UsageError

holds = is_hdf5


def load(request: Request) -> Found:
    """Load a file with the Keras that saved it. Raises UsageError when that fails."""
    path = Path(request.model)
    saved = _read(path)
    if saved.is_keras_2:
        return keras2.of_parts(path.stem, path, saved, weights=path)
    return Found(path.stem, keras_file.load_file(path))


def _read(path: Path) -> Configuration:
    try:
        saved = configuration.of_hdf5(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise refusal(path, error) from error
    if saved.content is None:
        raise UsageError(f"{path}: {_WEIGHTS_ONLY if saved.only_weights else _NO_MODEL}")
    return saved


_NO_MODEL = "an HDF5 file without a Keras model in it; save yours with model.save('x.keras')"
_WEIGHTS_ONLY = (
    "holds weights without a model: name the application they belong to as MODEL, "
    "and give the file as --weights"
)
