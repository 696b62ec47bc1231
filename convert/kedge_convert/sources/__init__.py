"""Where models come from: one module a kind, twins with one verb.

`load(request) -> Found`; each raises UsageError in one line for what it can't read. The kind is
told by what a file holds, not by how it is called.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kedge_convert.sources import (
    application,
    architecture,
    keras_file,
    legacy_h5,
    precision,
    saved_model,
)
from kedge_convert.sources.found import Facts, Found, Request
from kedge_convert.sources.plain import plain
from kedge_convert.sources.training_layers import without_augmentation
from kedge_models import cards
from kedge_runtime.errors import UsageError

__all__ = [
    "KINDS",
    "Facts",
    "Found",
    "Kind",
    "Request",
    "is_path",
    "kind_of",
    "load",
    "takes_weights",
]


_SUFFIXES = (".keras", ".h5", ".hdf5", ".json", *architecture.YAML)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is recognised, and what loads it."""

    holds: Callable[[Path], bool]
    load: Callable[[Request], Found]


ARCHITECTURE = "architecture and weights"
KINDS: dict[str, Kind] = {
    "Keras file": Kind(keras_file.holds, keras_file.load),
    "legacy HDF5 file": Kind(legacy_h5.holds, legacy_h5.load),
    "SavedModel": Kind(saved_model.holds, saved_model.load),
    ARCHITECTURE: Kind(architecture.holds, architecture.load),
}


def load(request: Request) -> Found:
    """Return the model of a card or a file, in float32. Raises UsageError when there is none."""
    found = _load(request)
    model, left_out = without_augmentation(plain(found.model, found.name))
    model, notes = precision.in_float32(model)
    return replace(found, model=model, notes=(*found.notes, *left_out, *notes))


def _load(request: Request) -> Found:
    if not is_path(request.model):
        return application.load(request)
    return KINDS[kind_of(Path(request.model))].load(request)


def is_path(model: str) -> bool:
    """Whether MODEL means a file: a card's name wins over a folder that is called like it."""
    path = Path(model)
    if model.lower() in {application.DEMO, *map(str.lower, cards())}:
        return False
    return path.exists() or path.name != model or path.suffix in _SUFFIXES


def takes_weights(model: str) -> bool:
    """Whether `--weights` belongs to MODEL: a card's name, or an architecture without weights."""
    if not is_path(model):
        return model != application.DEMO
    return Path(model).exists() and architecture.holds(Path(model))


def kind_of(path: Path) -> str:
    """Return the name of the kind in KINDS that `path` is of. Raises UsageError for none."""
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    for name, kind in KINDS.items():
        if kind.holds(path):
            return name
    what = "folder" if path.is_dir() else "file"
    raise UsageError(
        f"{path}: no Keras model in this {what}: kedge takes .keras files (model.save('x.keras')), "
        "legacy .h5 files, model.json with its weights, and SavedModel folders (model.export('x'))"
    )
