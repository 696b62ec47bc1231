"""Load an architecture, as `model.to_json()` writes it, with weights from a separate file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_convert.load import configuration, keras2, weights_file
from kedge_convert.load.configuration import Configuration, is_hdf5, refusal, refuse_unsafe
from kedge_convert.load.for_inference import for_inference
from kedge_convert.load.keras2 import Saved
from kedge_convert.load.request import LoadedModel, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.output import quiet

SHOWN = 3  # files of weights, where several lie beside an architecture
YAML = (".yaml", ".yml")
_YAML_REMEDY = (
    "an architecture in YAML, which Keras no longer reads: write it as JSON, "
    "json.dump(yaml.safe_load(open('model.yaml')), open('model.json', 'w')), and give that file"
)


def holds(path: Path) -> bool:
    """Whether a path is an architecture in JSON or YAML, or a folder with one."""
    return path.suffix.lower() in YAML if path.is_file() and not _is_json(path) else _has_one(path)


def load(request: SourceRequest) -> LoadedModel:
    """Load an architecture with `--weights`, or with the one file of weights beside it.

    Raises UsageError where there is none, or where they don't match.
    """
    model = Path(request.model)
    files = _files_of(request)
    name = model.resolve().name if model.is_dir() else files.path.stem
    if files.saved.is_keras_2:
        saved = Saved(name, files.path, files.saved.content, request.output)
        return keras2.of_parts(saved, files.weights)
    return LoadedModel(name, _of_keras_3(files))


def check(request: SourceRequest) -> None:
    """Raise UsageError for an architecture without weights, or in YAML."""
    _files_of(request)


@dataclass(frozen=True)
class ArchitectureFiles:
    """The file of an architecture, its content, and the file of its weights."""

    path: Path
    saved: Configuration
    weights: Path


def _files_of(request: SourceRequest) -> ArchitectureFiles:
    path = architecture_in(Path(request.model))
    saved = configuration.of_json(path)
    if saved is None:
        raise UsageError(_YAML_REMEDY)
    return ArchitectureFiles(path, saved, weights_of(path, request.weights))


def architecture_in(model: Path) -> Path:
    """Return the file of an architecture, or the one in a folder."""
    return model if model.is_file() else next(iter(_architectures(model)))


def _of_keras_3(files: ArchitectureFiles) -> Any:
    refuse_unsafe(files.saved.content)
    try:
        with quiet(), for_inference():
            model = require("keras").models.model_from_json(files.path.read_text("utf-8"))
    # Keras raises whatever the user's file causes.
    except Exception as error:
        raise refusal(files.path, error) from error
    weights_file.load_into(model, files.weights, files.path.name)
    return model


def weights_of(path: Path, requested: str) -> Path:
    """Return the file of `--weights`, else the only one beside an architecture.

    Raises UsageError where there is none.
    """
    if requested != SourceRequest.weights:
        file = Path(requested)
        if not is_hdf5(file):
            what = "no HDF5 file" if file.exists() else "no such file"
            raise UsageError(f"--weights: {file}: {what}; give the weights of {path.name}, an .h5")
        return file
    beside = sorted(each for each in path.parent.glob("*.h5") if is_hdf5(each))
    if len(beside) != 1:
        raise _without_weights(path, beside)
    return beside[0]


def _without_weights(path: Path, beside: list[Path]) -> UsageError:
    # The one named like the architecture is the likeliest.
    likeliest = sorted(beside, key=lambda each: not each.name.startswith(path.stem))
    names = ", ".join(each.name for each in likeliest[:SHOWN]) or "none"
    names += ", ..." if len(beside) > SHOWN else ""
    return UsageError(
        f"an architecture without weights: give --weights FILE (.h5 files beside it: {names})"
    )


def _architectures(folder: Path) -> list[Path]:
    """Return a folder's architectures in JSON."""
    return [each for each in sorted(folder.glob("*.json")) if _is_json(each)]


def _has_one(path: Path) -> bool:
    return _is_json(path) or (path.is_dir() and len(_architectures(path)) == 1)


def _is_json(path: Path) -> bool:
    return path.is_file() and configuration.of_json(path) is not None
