"""A `.keras` file: a zip archive of a configuration and weights."""

from pathlib import Path
from typing import Any

from kedge_convert.load import configuration, hub, keras2
from kedge_convert.load.configuration import (
    content_of,
    is_hdf5,
    linked_as,
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

# Packing hardly shrinks weights: Keras itself stores them as they are.
_PACKED, _SPARE = 20, 64 << 20


def holds(path: Path) -> bool:
    """Whether a path is a zip archive with a model's configuration.

    A sealed artefact ends in a zip, too. Raises UsageError for a SavedModel in a zip.
    """
    if not (path.is_file() and is_archive(path)):
        return False
    try:
        with opened(path) as archive:
            names = archive.namelist()
    except FAULTS as error:
        raise UsageError(f"no readable archive ({error}); save the model again") from None
    if any(Path(name).name == "saved_model.pb" for name in names):
        raise UsageError("a SavedModel in a zip: unpack it, and give the folder")
    return configuration.CONFIG in names


def load(request: SourceRequest) -> LoadedModel:
    """Load a Keras file. Raises UsageError when Keras can't."""
    path = Path(request.model)
    saved = configuration.of_archive(path)
    if saved.is_keras_2:
        return keras2.of_archive(Saved(path.stem, path, saved.content, request.output))
    if hub.is_needed(saved.content):
        hub.import_package()
        return hub.loaded(path.stem, load_file(path), request)
    return LoadedModel(path.stem, load_file(path))


def load_file(path: Path) -> Any:
    """Return the model of a file saved by Keras 3, not compiled. Raises UsageError."""
    keras = require("keras")
    suffix = ".h5" if is_hdf5(path) else ".keras"
    try:
        _refuse_unsafe(path)
        with quiet(), for_inference(), linked_as(path, f"model{suffix}") as link:
            return keras.models.load_model(link, compile=False)
    except UsageError:
        raise
    # Keras raises whatever the user's file causes.
    except Exception as error:
        raise refusal(path, error) from error


def _refuse_unsafe(path: Path) -> None:
    """Raise UsageError for code, links to other files, and archives that unpack to far more.

    The installed Keras may accept these: its releases learned of them one after the other.
    """
    refuse_unsafe(content_of(path))
    if is_hdf5(path):
        refuse_links(path)
        return
    with opened(path) as archive:
        members = archive.infolist()
        size = sum(each.file_size for each in members)
        if size > (most := _PACKED * path.stat().st_size + _SPARE):
            raise UsageError(
                f"unpacks to {size} bytes, allowed for a file of its size are {most}: save it "
                "again, model.save('x.keras')"
            )
        for each in members:
            if each.filename.endswith(".h5"):
                refuse_links(path, archive.read(each))
