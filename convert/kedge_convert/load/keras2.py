"""Load models of Keras 1 and 2 with tf_keras, rebuild them in Keras 3, and compare the answers."""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.load import graph_layer, keras2_rebuild, tfmot, tfmot_qat, weights_file
from kedge_convert.load.configuration import CONFIG, refusal, refuse_links, screen
from kedge_convert.load.graph_model import Notes, graph_model
from kedge_convert.load.inputs import noise
from kedge_convert.load.keras2_rebuild import Rebuilt
from kedge_convert.load.outputs import chosen
from kedge_convert.load.request import LoadedModel
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.files import temporary_folder
from kedge_runtime.output import quiet


def traced(original: Any, output: str | None, name: str) -> tuple[Any, Notes]:
    """Return the Keras 3 model around the graph of a tf_keras model, and what is to be said of it.

    `output`: the name or index of one of several outputs; `name` is for messages. Raises UsageError
    where it isn't told which one, and for a graph that no device runs.
    """
    tf = require("tensorflow")
    module = "tensorflow.python.framework.convert_to_constants"
    shape = original.inputs[0].shape
    run = tf.function(lambda images: original(images, training=False), autograph=False)
    concrete = run.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    flat = require(module).convert_variables_to_constants_v2(concrete)
    definition = flat.graph.as_graph_def()
    names = tuple(original.output_names)
    index = chosen(name, "output", names, output) if len(names) > 1 else 0
    graph = graph_layer.FrozenGraph(definition, flat.inputs[0].name, flat.outputs[index].name)
    return graph_model(graph, tuple(shape), "float32", name)


# The largest difference, as a share of the largest answer.
TOLERANCE = 1e-5
IMAGES = 2


def check(original: Any, rebuilt: Rebuilt) -> None:
    """Raise ValueError where a rebuilt model answers noise otherwise than the original does.

    The answers are compared as they are, and a second time without the activation of the last
    layer: a saturated softmax would hide whatever goes wrong before it. Where the last layer is an
    activation without weights that can't be swapped (Softmax), the first comparison decides.
    """
    # Anything but one image in is refused later, by what it is.
    if len(rebuilt.model.inputs) != 1:
        return
    compare(original, rebuilt.model)
    with _linear(rebuilt.last):
        compare(original, rebuilt.model)


def compare(original: Any, model: Any) -> None:
    """Raise ValueError where the answers to noise of two models of one input differ."""
    images, flatten = noise(model, IMAGES), require("keras").tree.flatten
    expected, answers = (flatten(each(images, training=False)) for each in (original, model))
    for wanted, found in zip(map(np.asarray, expected), map(np.asarray, answers), strict=True):
        largest = np.abs(wanted).max()
        difference = np.abs(wanted - found).max()
        if not difference <= TOLERANCE * largest:
            raise ValueError(f"its answers differ by {difference:.1e} of {largest:.1e}")


@contextmanager
def _linear(layers: tuple[Any, ...]) -> Iterator[None]:
    """Switch the activation of both last layers off, where it is a function."""
    activations = [getattr(layer, "activation", None) for layer in layers]
    swapped = [] if any(map(_is_no_function, activations)) else list(layers)
    for layer in swapped:
        layer.activation = _identity
    try:
        yield
    finally:
        for layer, activation in zip(swapped, activations, strict=False):
            layer.activation = activation


def _is_no_function(activation: Any) -> bool:
    return activation is None or hasattr(activation, "get_config")


def _identity(value: Any) -> Any:
    return value


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


def of_archive(saved: Saved) -> LoadedModel:
    """Load a `.keras` archive. Raises UsageError when tf_keras can't."""
    return _found(saved, lambda config: _from_archive(saved.path, config))


def of_parts(saved: Saved, weights: Path) -> LoadedModel:
    """Load a configuration and weights from HDF5. Raises UsageError."""

    def load(config: Any) -> Any:
        models = require("tf_keras").models
        model = models.model_from_json(json.dumps(config), custom_objects=_custom_objects())
        weights_file.fill(model, weights)
        return model

    return _found(saved, load)


def _found(saved: Saved, load: Callable[[Any], Any]) -> LoadedModel:
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
            rebuilt = keras2_rebuild.rebuilt(original)
            check(original, rebuilt)
        return LoadedModel(saved.name, rebuilt.model, notes=rebuilt.notes)
    # Whatever Keras 3 can't hold or answers otherwise, tf_keras has it: its graph goes on.
    except Exception as error:
        return _as_graph(saved, original, error)


def _as_graph(saved: Saved, original: Any, reason: Exception) -> LoadedModel:
    """Return the model as its graph. Raises UsageError where it has no graph of one image."""
    if len(original.inputs or ()) != 1:
        raise refusal(saved.path, reason, "tf_keras") from reason
    try:
        with quiet():
            model, notes = traced(original, saved.output, str(saved.path))
            # What was taken out of the graph on purpose has a note.
            if len(original.outputs) == 1 and not notes:
                compare(original, model)
    except UsageError:
        raise
    except Exception as error:
        raise refusal(saved.path, error, "tf_keras") from error
    weights = "" if notes else ", whose int8 weights are stock ones"
    why = f"Keras 3 can't hold its layers ({one_line(reason, 120)})"
    return LoadedModel(saved.name, model, notes=(f"loaded as a graph{weights}: {why}", *notes))


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
                    content = weights_file.today(content)
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
