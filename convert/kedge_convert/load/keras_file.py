"""A `.keras` file: a zip archive of a configuration and weights."""

from pathlib import Path
from typing import Any

from kedge_convert.load import configuration, hub, keras2
from kedge_convert.load.configuration import (
    called,
    content_of,
    is_hdf5,
    refusal,
    refuse_links,
    refuse_unsafe,
)
from kedge_convert.load.for_inference import for_inference
from kedge_convert.load.keras2 import Saved
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.modelfile.archives import FAULTS, is_archive, opened
from kedge_runtime.output import quiet

# Weights hardly get smaller by packing: Keras itself stores them as they are.
_PACKED, _SPARE = 20, 64 << 20


def holds(path: Path) -> bool:
    """Whether a path is a zip archive with a model's configuration in it.

    A sealed artefact ends in a zip, too. Raises UsageError for a SavedModel in a zip.
    """
    if not (path.is_file() and is_archive(path)):
        return False
    try:
        with opened(path) as archive:
            names = archive.namelist()
    except FAULTS as error:
        raise UsageError(f"{path}: no readable archive ({error}); save the model again") from None
    if any(Path(name).name == "saved_model.pb" for name in names):
        raise UsageError(f"{path}: a SavedModel in a zip: unpack it, and give the folder")
    return configuration.CONFIG in names


def load(request: SourceRequest) -> LoadedModel:
    """Load a Keras file. Raises UsageError when Keras can't."""
    path = Path(request.model)
    saved = configuration.of_archive(path)
    if saved.is_keras_2:
        return keras2.of_archive(Saved(path.stem, path, saved.content, request.output))
    if hub.is_needed(saved.content):
        hub.bring(path)
        return hub.found(path.stem, load_file(path), request)
    return LoadedModel(path.stem, load_file(path))


def load_file(path: Path) -> Any:
    """Return the Keras model of a file that Keras 3 saved, not compiled. Raises UsageError."""
    keras = require("keras")
    suffix = ".h5" if is_hdf5(path) else ".keras"
    try:
        _screen(path)
        with quiet(), for_inference(), called(path, f"model{suffix}") as link:
            return keras.models.load_model(link, compile=False)
    except UsageError:
        raise
    # Keras lets whatever it stumbles over through; here it stumbled over the user's file.
    except Exception as error:
        raise refusal(path, error) from error


def _screen(path: Path) -> None:
    """Raise UsageError for what holds code, names other files, or unpacks to far more than it is.

    The Keras that is installed may let these pass: it learned of them one after the other.
    """
    refuse_unsafe(path, content_of(path))
    if is_hdf5(path):
        refuse_links(path)
        return
    with opened(path) as archive:
        members = archive.infolist()
        size = sum(each.file_size for each in members)
        if size > (most := _PACKED * path.stat().st_size + _SPARE):
            raise UsageError(
                f"{path}: unpacks to {size} bytes, allowed for a file of its size are {most}: save "
                "it again, model.save('x.keras')"
            )
        for each in members:
            if each.filename.endswith(".h5"):
                refuse_links(path, archive.read(each))
