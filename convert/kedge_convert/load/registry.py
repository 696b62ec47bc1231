"""The registry of model sources: one module a kind, twins with the same verbs.

- `holds(path) -> bool`: recognises a file by its content, not by its name.
- `load(request) -> LoadedModel`: raises UsageError in one line for a file that it can't read.
- `check(request)`, where there is one: refuses without TensorFlow what `load` would refuse.

Their messages leave out the model's name: `about` puts it before them, once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kedge_convert.load import (
    application,
    architecture,
    for_inference,
    frozen_graph,
    h5_file,
    hub,
    keras_file,
    onnx_file,
    outputs,
    program_file,
    saved_model,
    weights_file,
)
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_models.cards import card, cards
from kedge_runtime.errors import UsageError, reason_of


@contextmanager
def about(model: str) -> Iterator[None]:
    """Put a model's name before the block's UsageErrors, unless these begin with an option."""
    try:
        yield
    except UsageError as error:
        if str(error).startswith("--"):
            raise
        raise type(error)(f"{model}: {error}") from error.__cause__


@dataclass(frozen=True)
class SourceKind:
    """A kind of source. `selects_output`: its `load` handles `--output` itself."""

    holds: Callable[[Path], bool]
    load: Callable[[SourceRequest], LoadedModel]
    check: Callable[[SourceRequest], object] | None = None
    selects_output: bool = False


KINDS: dict[str, SourceKind] = {
    "Keras file": SourceKind(keras_file.holds, keras_file.load),
    "legacy HDF5 file": SourceKind(h5_file.holds, h5_file.load, h5_file.check),
    "SavedModel": SourceKind(saved_model.holds, saved_model.load, selects_output=True),
    "preset of keras_hub": SourceKind(hub.holds, hub.load),
    "TFLite file": SourceKind(program_file.holds, program_file.load, program_file.check),
    "ONNX file": SourceKind(onnx_file.holds, onnx_file.load, onnx_file.check),
    "frozen graph": SourceKind(frozen_graph.holds, frozen_graph.load, selects_output=True),
    "architecture and weights": SourceKind(
        architecture.holds, architecture.load, architecture.check
    ),
}
_SUFFIXES = (".keras", ".h5", ".hdf5", ".json", ".pb", ".tflite", ".onnx", *architecture.YAML)


def load(request: SourceRequest) -> LoadedModel:
    """Return the model of a card or a file, in float32. Raises UsageError."""
    kind = _kind(request)
    with about(request.model):
        loaded = application.load(request) if kind is None else kind.load(request)
        model = loaded.model
        if kind is None or not kind.selects_output:
            model = outputs.select(model, request.output)
        model, augmentation = for_inference.without_augmentation(for_inference.plain(model))
        model, precision = for_inference.in_float32(model)
    return replace(loaded, model=model, notes=(*loaded.notes, *augmentation, *precision))


def check(request: SourceRequest) -> None:
    """Raise UsageError for a file that `load` would refuse, as far as TensorFlow isn't needed.

    Options are checked too; a card's name is left to `load`.
    """
    kind = _kind(request)
    if kind is not None and kind.check:
        with about(request.model):
            kind.check(request)


def _kind(request: SourceRequest) -> SourceKind | None:
    """Return the kind of a file, None for a card.

    Raises UsageError for an unknown card, and for --signature without a SavedModel.
    """
    name = kind_of(Path(request.model)) if is_path(request.model) else None
    if name is None and request.model != application.DEMO:
        card(request.model)
    if request.signature is not None and name != "SavedModel":
        raise UsageError(
            f"--signature: {request.model} is no SavedModel, and has none; leave it out"
        )
    return None if name is None else KINDS[name]


def is_path(model: str) -> bool:
    """Whether MODEL means a file: a card's name has precedence over a folder of the same name."""
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
    """Return the key in KINDS of a path's kind. Raises UsageError for none."""
    with about(str(path)):
        if _is_checkpoint(path):
            raise UsageError(f"a checkpoint holds weights without a model: {weights_file.WHOLE}")
        if not path.exists():
            raise UsageError("no such file")
        try:
            kind = next((name for name, kind in KINDS.items() if kind.holds(path)), None)
        except OSError as error:
            raise UsageError(reason_of(error)) from None
        if kind is None:
            raise _no_model(path)
    return kind


def _no_model(path: Path) -> UsageError:
    what = "folder" if path.is_dir() else "file"
    return UsageError(
        f"no Keras model in this {what}: kedge takes .keras files (model.save('x.keras')), "
        "legacy .h5 files, model.json with its weights, SavedModel folders (model.export('x')), "
        "presets of keras_hub's classifiers, frozen .pb graphs, float .tflite and .onnx files"
    )
