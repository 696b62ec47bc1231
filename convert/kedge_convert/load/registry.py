"""Where models come from: one module a kind, twins with one verb.

`load(request) -> Found`; each raises UsageError in one line for what it can't read. The kind is
told by what a file holds, not by how it is called.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kedge_convert.load import (
    application,
    architecture,
    for_inference,
    frozen_graph,
    hub,
    keras_file,
    legacy_h5,
    outputs,
    saved_model,
    weights_file,
)
from kedge_convert.load.for_inference import plain, without_augmentation
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_models import cards
from kedge_runtime.errors import UsageError, reason_of

_SUFFIXES = (".keras", ".h5", ".hdf5", ".json", ".pb", *architecture.YAML)


@dataclass(frozen=True)
class SourceKind:
    """A kind of file: how it is recognised, and what loads it.

    `check` raises UsageError for what `load` would refuse, as far as that is known without
    TensorFlow. `chooses`: whether its `load` takes the output that is asked for out of several.
    """

    holds: Callable[[Path], bool]
    load: Callable[[SourceRequest], LoadedModel]
    check: Callable[[SourceRequest], object] | None = None
    chooses: bool = False


ARTEFACTS = (".tflite", ".onnx")
_SEALED = "; a .tflite or .onnx file is converted already: kedge seal prepares it for classify"
ARCHITECTURE = "architecture and weights"
KINDS: dict[str, SourceKind] = {
    "Keras file": SourceKind(keras_file.holds, keras_file.load),
    "legacy HDF5 file": SourceKind(legacy_h5.holds, legacy_h5.load, legacy_h5.check),
    "SavedModel": SourceKind(saved_model.holds, saved_model.load, chooses=True),
    "preset of keras_hub": SourceKind(hub.holds, hub.load),
    "frozen graph": SourceKind(frozen_graph.holds, frozen_graph.load, chooses=True),
    ARCHITECTURE: SourceKind(architecture.holds, architecture.load, architecture.check),
}


def load(request: SourceRequest) -> LoadedModel:
    """Return the model of a card or a file, in float32. Raises UsageError when there is none."""
    kind = _checked_kind(request)
    found = application.load(request) if kind is None else KINDS[kind].load(request)
    model = found.model
    if kind is None or not KINDS[kind].chooses:
        model = outputs.only(model, request.output, found.name)
    model, left_out = without_augmentation(plain(model, found.name))
    model, notes = for_inference.in_float32(model)
    return replace(found, model=model, notes=(*found.notes, *left_out, *notes))


def check(request: SourceRequest) -> None:
    """Raise UsageError for a file that `load` would refuse, as far as is known without TensorFlow.

    What the user says of it is checked, too; a card's name is left to `load`.
    """
    kind = _checked_kind(request)
    if kind is not None and (look := KINDS[kind].check):
        look(request)


def _checked_kind(request: SourceRequest) -> str | None:
    """Return the kind of a file, None for a card. Raises UsageError for a signature in vain."""
    kind = kind_of(Path(request.model)) if is_path(request.model) else None
    if request.signature is not None and kind != "SavedModel":
        raise UsageError(
            f"--signature: {request.model} is no SavedModel, and has none; leave it out"
        )
    return kind


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


def _is_checkpoint(path: Path) -> bool:
    """Whether a path is TensorFlow's checkpoint: its prefix, one of its files, or their folder."""
    if path.is_dir():
        return not saved_model.holds(path) and any(path.glob("*.index"))
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    return prefix.with_name(f"{prefix.name}.index").is_file()


def kind_of(path: Path) -> str:
    """Return the name of the kind in KINDS that `path` is of. Raises UsageError for none."""
    if _is_checkpoint(path):
        raise UsageError(
            f"{path}: a checkpoint holds weights without a model: {weights_file.WHOLE}"
        )
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    try:
        found = next((name for name, kind in KINDS.items() if kind.holds(path)), None)
    except OSError as error:
        raise UsageError(f"{path}: {reason_of(error)}") from None
    if found:
        return found
    what = "folder" if path.is_dir() else "file"
    raise UsageError(
        f"{path}: no Keras model in this {what}: kedge takes .keras files (model.save('x.keras')), "
        "legacy .h5 files, model.json with its weights, SavedModel folders (model.export('x')), "
        "presets of keras_hub's classifiers and frozen .pb graphs"
        f"{_SEALED if path.suffix.lower() in ARTEFACTS else ''}"
    )
