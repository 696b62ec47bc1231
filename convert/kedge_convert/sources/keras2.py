"""Models that Keras 1 and 2 saved: loaded by tf_keras, and rebuilt as models of Keras 3."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedge_convert.sources import (
    judge,
    layer_names,
    rebuild,
    tfmot,
    tfmot_qat,
    traced,
    weights_file,
)
from kedge_convert.sources.configuration import CONFIG
from kedge_convert.sources.found import Found
from kedge_convert.sources.hdf5 import refuse_links
from kedge_convert.sources.refusal import refusal
from kedge_convert.sources.screening import screen
from kedge_convert.toolkit import quiet, require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.files import temporary_folder

# As they were called in Keras 1; tf_keras has the other older names.
_RENAMED = {
    "AtrousConvolution2D": "Conv2D",
    "Convolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
}
_WEIGHTS = "model.weights.h5"  # its member of a .keras archive
# Keys without a meaning for inference: what they name may be the author's own.
_TRAINING = ("_initializer", "_regularizer", "_constraint", "compile_config", "pruning_schedule")


@dataclass(frozen=True)
class Saved:
    """A model as Keras 2 saved it: what it is called, its file, the configuration, and the
    `output` that was asked for.
    """

    name: str
    path: Path
    config: Any
    output: str | None


def of_archive(saved: Saved) -> Found:
    """Load a `.keras` archive. Raises UsageError when tf_keras can't."""
    return _found(saved, lambda config: _from_archive(saved.path, config))


def of_parts(saved: Saved, weights: Path) -> Found:
    """Load a configuration and weights from HDF5. Raises UsageError."""

    def load(config: Any) -> Any:
        models = require("tf_keras").models
        model = models.model_from_json(json.dumps(config), custom_objects=_custom_objects())
        weights_file.fill(model, weights)
        return model

    return _found(saved, load)


def _found(saved: Saved, load: Callable[[Any], Any]) -> Found:
    try:
        # After mending: what only training needs may be the author's own, and is never built.
        screen(saved.path, config := _mended(saved.config))
        with quiet():
            original = load(config)
    except UsageError:
        raise
    # Keras lets whatever it stumbles over through; here it stumbled over the user's file.
    except Exception as error:
        raise refusal(saved.path, error, "tf_keras") from error
    try:
        with quiet():
            rebuilt = rebuild.rebuilt(original)
            judge.check(original, rebuilt)
        return Found(saved.name, rebuilt.model, notes=rebuilt.notes)
    # Whatever Keras 3 can't hold or answers otherwise, tf_keras has it: its graph goes on.
    except Exception as error:
        return _as_graph(saved, original, error)


def _as_graph(saved: Saved, original: Any, reason: Exception) -> Found:
    """Return the model as its graph. Raises UsageError where it has no graph of one image."""
    if len(original.inputs or ()) != 1:
        raise refusal(saved.path, reason, "tf_keras") from reason
    try:
        with quiet():
            model, notes = traced.traced(original, saved.output, str(saved.path))
            # What was taken out of the graph on purpose has a note.
            if len(original.outputs) == 1 and not notes:
                judge.compare(original, model)
    except UsageError:
        raise
    except Exception as error:
        raise refusal(saved.path, error, "tf_keras") from error
    weights = "" if notes else ", whose int8 weights are stock ones"
    why = f"Keras 3 can't hold its layers ({one_line(reason, 120)})"
    return Found(saved.name, model, notes=(f"loaded as a graph{weights}: {why}", *notes))


def _custom_objects() -> dict[str, Any]:
    """Return the stand-ins, and the functions that Keras's own early applications defined."""
    return {**tfmot.stand_ins(), **tfmot_qat.stand_ins(), "relu6": require("tensorflow").nn.relu6}


def _from_archive(path: Path, config: Any) -> Any:
    """Return the model of an archive with its configuration replaced."""
    models = require("tf_keras").models
    with temporary_folder() as folder:
        copy = folder / "model.keras"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
            for member in old.namelist():
                content = old.read(member)
                if member == CONFIG:
                    content = json.dumps(config).encode()
                if member == _WEIGHTS:
                    refuse_links(path, content)
                    content = layer_names.today(content)
                new.writestr(member, content)
        return models.load_model(copy, custom_objects=_custom_objects(), compile=False)


def _mended(config: Any) -> Any:
    """Return a configuration that tf_keras can read, for inference in float32."""
    if isinstance(config, list):
        return [_mended(each) for each in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "__numpy__":  # TensorFlow 2.12's way to write a number
        return config["config"]["value"]
    return {
        key: _VALUES.get(key, _mended)(value)
        for key, value in config.items()
        if not key.endswith(_TRAINING)
    }


def _dtype(dtype: Any) -> Any:
    """A mixed policy computes in float16 what the weights hold in float32."""
    is_plain = isinstance(dtype, str) and "float" not in dtype
    return dtype if dtype is None or is_plain else "float32"


def _module(module: Any) -> Any:
    """TensorFlow 2.12 kept Keras's classes where tf_keras has `src`."""
    return str(module).replace("keras.engine.", "keras.src.engine.") if module else module


def _class_name(name: Any) -> Any:
    return _RENAMED.get(name, name)


_VALUES: dict[str, Callable[[Any], Any]] = {
    "class_name": _class_name,
    "dtype": _dtype,
    "module": _module,
}
