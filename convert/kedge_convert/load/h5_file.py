"""Load whole models from HDF5 files, as Keras 1, 2 and 3 save them."""

from functools import cache
from pathlib import Path
from typing import Any

from kedge_convert.load import configuration, keras2, keras_file, weights_file
from kedge_convert.load.configuration import Configuration, is_hdf5, objects, refusal, refuse_unsafe
from kedge_convert.load.for_inference import for_inference
from kedge_convert.load.keras2 import Saved
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.output import quiet

holds = is_hdf5


def load(request: SourceRequest) -> LoadedModel:
    """Load a file with the Keras version that saved it. Raises UsageError when that fails."""
    path = Path(request.model)
    saved = _read(path)
    if saved.is_keras_2:
        return keras2.of_parts(Saved(path.stem, path, saved.content, request.output), weights=path)
    if not any(map(_is_operation, objects(saved.content))):
        return LoadedModel(path.stem, keras_file.load_file(path))
    return LoadedModel(path.stem, _with_operations(path, saved.content))


def check(request: SourceRequest) -> None:
    """Raise UsageError for a file without a model."""
    _read(Path(request.model))


def _with_operations(path: Path, config: Any) -> Any:
    """Return the model of a file of Keras 3 with `x / 255` and the like in its graph.

    Keras's HDF5 reader looks for these among the layers, and finds none.
    """
    refuse_unsafe(config)
    try:
        for each in filter(_is_operation, objects(config)):
            module = _operations()[each["class_name"]].__module__
            each.update(module=module, registered_name=each["class_name"])
        with quiet(), for_inference():
            model = require("keras").Model.from_config(config["config"])
            weights_file.fill(model, path)
    except UsageError:
        raise
    # Keras raises whatever the user's file causes.
    except Exception as error:
        raise refusal(path, error) from error
    return model


def _is_operation(part: dict[str, Any]) -> bool:
    """Whether a part of a configuration is an operation: only a layer has a dtype."""
    in_graph = "inbound_nodes" in part and "dtype" not in part["config"]
    return in_graph and part["class_name"] in _operations()


@cache
def _operations() -> dict[str, type]:
    """Return the classes of keras.ops by name."""
    waiting, found = [require("keras").Operation], dict[str, type]()
    while waiting:
        kinds = waiting.pop().__subclasses__()
        waiting += kinds
        found |= {kind.__name__: kind for kind in kinds if ".ops." in kind.__module__}
    return found


def _read(path: Path) -> Configuration:
    try:
        saved = configuration.of_hdf5(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise refusal(path, error) from error
    if saved.content is None:
        raise UsageError(_WEIGHTS_ONLY if saved.only_weights else _NO_MODEL)
    return saved


_NO_MODEL = "an HDF5 file without a Keras model; save yours with model.save('x.keras')"
_WEIGHTS_ONLY = (
    "holds weights without a model: give model.json (model.to_json()) or the application they "
    f"belong to as MODEL, and the file as --weights; or {weights_file.WHOLE}"
)
