"""An architecture, as `model.to_json()` writes it, and weights in a file of their own."""

from pathlib import Path

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
    "an architecture in YAML, which Keras itself has given up: write it as JSON, "
    "json.dump(yaml.safe_load(open('model.yaml')), open('model.json', 'w')), and give that file"
)


def holds(path: Path) -> bool:
    """Whether a path is an architecture in JSON or YAML, or a folder with one."""
    return path.suffix.lower() in YAML if path.is_file() and not _is_json(path) else _has_one(path)


def load(request: SourceRequest) -> LoadedModel:
    """Load an architecture and `--weights`, or the one file of weights beside it.

    Raises UsageError where there is none, or where they don't belong together.
    """
    given = Path(request.model)
    path, saved, weights = _parts(request)
    name = given.resolve().name if given.is_dir() else path.stem
    if saved.is_keras_2:
        return keras2.of_parts(Saved(name, path, saved.content, request.output), weights)
    return _of_keras_3(name, path, saved, weights)


def check(request: SourceRequest) -> None:
    """Raise UsageError for an architecture without weights, or in YAML."""
    _parts(request)


def _parts(request: SourceRequest) -> tuple[Path, Configuration, Path]:
    """Return the file of an architecture, what it holds, and the file of its weights."""
    path = architecture_in(Path(request.model))
    saved = configuration.of_json(path)
    if saved is None:
        raise UsageError(f"{path}: {_YAML_REMEDY}")
    return path, saved, weights_of(path, request.weights)


def _of_keras_3(name: str, path: Path, saved: Configuration, weights: Path) -> LoadedModel:
    refuse_unsafe(path, saved.content)
    try:
        with quiet(), for_inference():
            model = require("keras").models.model_from_json(path.read_text("utf-8"))
    # Keras lets whatever it stumbles over through; here it stumbled over the user's file.
    except Exception as error:
        raise refusal(path, error) from error
    weights_file.load_into(model, weights, path.name)
    return LoadedModel(name, model)


def architecture_in(given: Path) -> Path:
    """Return the file of an architecture, or the one in a folder."""
    return given if given.is_file() else next(iter(_architectures(given)))


def weights_of(path: Path, asked: str) -> Path:
    """Return the file that `--weights` names, else the only one beside an architecture.

    Raises UsageError where there is none.
    """
    if asked != SourceRequest.weights:
        found = Path(asked)
        if not is_hdf5(found):
            what = "no HDF5 file" if found.exists() else "no such file"
            raise UsageError(f"--weights: {found}: {what}; give the weights of {path.name}, an .h5")
        return found
    beside = sorted(each for each in path.parent.glob("*.h5") if is_hdf5(each))
    if len(beside) != 1:
        # The one that is called like the architecture is the likeliest.
        beside.sort(key=lambda each: not each.name.startswith(path.stem))
        names = ", ".join(each.name for each in beside[:SHOWN]) or "none"
        names += ", ..." if len(beside) > SHOWN else ""
        raise UsageError(
            f"{path}: an architecture without weights: give --weights FILE (.h5 files beside it: "
            f"{names})"
        )
    return beside[0]


def _architectures(folder: Path) -> list[Path]:
    """Return the files of a folder that hold an architecture in JSON."""
    return [each for each in sorted(folder.glob("*.json")) if _is_json(each)]


def _has_one(path: Path) -> bool:
    return _is_json(path) or (path.is_dir() and len(_architectures(path)) == 1)


def _is_json(path: Path) -> bool:
    return path.is_file() and configuration.of_json(path) is not None
