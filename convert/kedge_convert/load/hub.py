"""keras_hub's image classifiers: `.keras` files and preset folders that name its classes.

The preprocessor of such a model is no part of its graph. So the contract takes over what it does,
and the graph alone is converted.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.load import input_stage
from kedge_convert.load.configuration import objects, refusal, refuse_links
from kedge_convert.load.input_stage import behind
from kedge_convert.load.request import LoadedModel, SourceFacts, SourceRequest
from kedge_convert.toolkit import require
from kedge_runtime.artefact.contract import Normalisation
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.errors import UsageError, install
from kedge_runtime.image.pipelines import NORMALISATIONS, Pipeline
from kedge_runtime.output import quiet

PACKAGE = "keras_hub"
_PRESET = ("config.json", "model.weights.h5", "metadata.json")
_TASK = "task.json"
_SAVED = "save the classifier with model.save('x.keras'), and give that file"
# Tolerance of the numbers at 0 and 255: Keras multiplies where kedge divides.
_EQUAL = 1e-5


def holds(path: Path) -> bool:
    """Whether a path is a folder written by `save_to_preset` of keras_hub."""
    return path.is_dir() and all((path / name).is_file() for name in _PRESET)


def is_needed(config: Any) -> bool:
    """Whether a configuration names a class of keras_hub's."""
    words = ("registered_name", "module")
    names = [str(part.get(word)) for part in objects(config) for word in words]
    return any(name.startswith((f"{PACKAGE}>", f"{PACKAGE}.")) for name in names)


def import_package() -> Any:
    """Import keras_hub. Raises UsageError where it isn't installed."""
    if find_spec(PACKAGE) is None:
        raise UsageError(f"needs keras_hub, which isn't installed: {install('hub')}")
    with quiet():
        return require(PACKAGE)


def load(request: SourceRequest) -> LoadedModel:
    """Load the classifier of a preset folder. Raises UsageError for presets of anything else."""
    path = Path(request.model)
    hub = import_package()
    if not _is_classifier(hub, path):
        raise UsageError(f"a preset of keras_hub without an image classifier: {_SAVED}")
    for weights in sorted(path.glob("*.h5")):
        refuse_links(weights)
    try:
        with quiet():
            # Absolute: a bare name could be that of a preset to be downloaded.
            task = hub.models.ImageClassifier.from_preset(str(path.resolve()))
    # Keras raises whatever the user's files cause.
    except Exception as error:
        raise refusal(path, error) from error
    return loaded(path.resolve().name, task, request)


def loaded(name: str, model: Any, request: SourceRequest) -> LoadedModel:
    """Return a model of keras_hub's without its preprocessor, and what that states."""
    if not hasattr(model, "preprocessor"):
        return LoadedModel(name, model)
    preprocessor = model.preprocessor
    converter = getattr(preprocessor, "image_converter", None)
    plain = require("keras").Model(model.inputs, model.outputs, name=model.name)
    if converter is None:
        note = "preprocessor skipped: it is no image converter of keras_hub's"
        return LoadedModel(name, plain, notes=(note,) if preprocessor is not None else ())
    size = converter.image_size
    if size is not None and request.size is None:
        plain = _of_size(plain, size)
    facts, notes = _facts(converter, plain.inputs[0].shape[-1])
    return LoadedModel(name, plain, facts, notes)


def _is_classifier(hub: Any, path: Path) -> bool:
    try:
        task = json.loads((path / _TASK).read_text(encoding="utf-8"))
        name = str(task["registered_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    kind = require("keras").saving.get_registered_object(name)
    return isinstance(kind, type) and issubclass(kind, hub.models.ImageClassifier)


def _of_size(model: Any, size: tuple[int, int]) -> Any:
    """Return a model of open size for its preprocessor's size."""
    _, height, width, channels = model.inputs[0].shape
    if None not in (height, width):
        return model
    return behind(model, (None, *size, channels))


def _facts(converter: Any, channels: int) -> tuple[SourceFacts, tuple[str, ...]]:
    """Return what an ImageConverter states, and notes on what kedge can't reproduce."""
    resizes = converter.image_size is not None
    pipeline = _pipeline(converter) if resizes else None
    normalisation = _normalisation(converter, channels)
    missing = [f"resizing ({_resizing(converter)})"] if resizes and pipeline is None else []
    missing += ["scale, which is not positive"] if normalisation is None else []
    notes = tuple(f"kedge has no equivalent of its preprocessor's {each}" for each in missing)
    facts = SourceFacts(pipeline=pipeline, normalisation=normalisation, told_by="its preprocessor")
    return facts, notes


def _resizing(converter: Any) -> str:
    words = [converter.interpolation]
    words += ["antialias"] if converter.antialias else []
    words += ["pad_to_aspect_ratio"] if converter.pad_to_aspect_ratio else []
    return ", ".join(words)


def _pipeline(converter: Any) -> Pipeline | None:
    """Return the device's equivalent of the converter's Resizing; None where there is none."""
    layer = converter.resizing
    return input_stage.pipeline(layer) if input_stage.is_known(layer) else None


def _normalisation(converter: Any, channels: int) -> Normalisation | None:
    """Return x * scale + offset as a contract's normalisation; None where it can't hold it."""
    scale, offset = (
        np.broadcast_to(np.asarray(default if value is None else value, np.float64), channels)
        for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    for known in NORMALISATIONS.values():
        if known.colour == "rgb" and channels == 3 and _same(known, scale, offset):
            return known
    if not (scale > 0).all():
        return None
    colour: Colour = "grey" if channels == 1 else "rgb"
    mean, std = ((-offset / scale).tolist(), (1 / scale).tolist())
    return Normalisation(colour, mean=tuple(mean), std=tuple(std))


def _same(known: Normalisation, scale: Any, offset: Any) -> bool:
    """Whether both give the same numbers for bytes 0 and 255."""
    ends = np.array([[0.0], [255.0]])
    theirs = (ends / known.divisor - np.array(known.mean)) / np.array(known.std)
    ours = ends * scale + offset
    return bool(np.allclose(ours, theirs, rtol=0, atol=_EQUAL * np.abs(ours).max()))
