"""Load models of Keras 1 and 2 with tf_keras, rebuild them in Keras 3, and compare both."""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kedge_convert.load import keras2_rebuild, tfmot, tfmot_qat, weights_file
from kedge_convert.load.configuration import CONFIG, refusal, refuse_foreign, refuse_links
from kedge_convert.load.graph_layer import CONSTANTS, FrozenGraph
from kedge_convert.load.graph_model import GraphModel, graph_model
from kedge_convert.load.input_stage import noise
from kedge_convert.load.keras2_rebuild import Rebuilt
from kedge_convert.load.outputs import choose
from kedge_convert.load.request import LoadedModel
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.files import temporary_folder
from kedge_runtime.output import quiet


def traced(model: Any, output: str | None) -> GraphModel:
    """Return the Keras 3 model around the graph of a tf_keras model.

    `output`: the name or index of one of several outputs. Raises UsageError where several need a
    choice, and for a graph that no device runs.
    """
    tf = require("tensorflow")
    shape = model.inputs[0].shape
    run = tf.function(lambda images: model(images, training=False), autograph=False)
    concrete = run.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    flat = require(CONSTANTS).convert_variables_to_constants_v2(concrete)
    names = tuple(model.output_names)
    index = choose("output", names, output) if len(names) > 1 else 0
    definition = flat.graph.as_graph_def()
    graph = FrozenGraph(definition, flat.inputs[0].name, flat.outputs[index].name)
    return graph_model(graph, tuple(shape), "float32")


# The largest difference, as a share of the largest output.
TOLERANCE = 1e-5
IMAGES = 2


def check(model: Any, rebuilt: Rebuilt) -> None:
    """Raise ValueError where the outputs of a tf_keras model and its rebuilt twin differ on noise.

    A second comparison leaves out the last layer's activation: a saturated softmax would hide
    whatever goes wrong before it. Where that is a layer of its own (Softmax), the first decides.
    """
    # Anything but one image in is refused later, with its reason.
    if len(rebuilt.model.inputs) != 1:
        return
    compare(model, rebuilt.model)
    with _linear(rebuilt.last):
        compare(model, rebuilt.model)


def compare(reference: Any, model: Any) -> None:
    """Raise ValueError where the outputs of two models of one input differ on noise."""
    images, flatten = noise(model, IMAGES), require("keras").tree.flatten
    both = (flatten(each(images, training=False)) for each in (reference, model))
    for expected, output in zip(*(map(np.asarray, each) for each in both), strict=True):
        largest = np.abs(expected).max()
        difference = np.abs(expected - output).max()
        if not difference <= TOLERANCE * largest:
            raise ValueError(f"its outputs differ by {difference:.1e} of {largest:.1e}")


@contextmanager
def _linear(layers: tuple[Any, ...]) -> Iterator[None]:
    """Switch both last layers' activation off, where it is a function."""
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


# Names of Keras 1; tf_keras has the other older names.
_RENAMED = {
    "AtrousConvolution2D": "Conv2D",
    "Convolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
}
_WEIGHTS = "model.weights.h5"  # its member of a .keras archive
# Keys that only training needs; they may name classes of the author's own.
_TRAINING = ("_initializer", "_regularizer", "_constraint", "compile_config", "pruning_schedule")


@dataclass(frozen=True)
class Saved:
    """A model saved by Keras 2: its name, file and configuration, and the requested `output`."""

    name: str
    path: Path
    config: Any
    output: str | None


def of_archive(saved: Saved) -> LoadedModel:
    """Load a `.keras` archive. Raises UsageError when tf_keras can't."""
    return _loaded(saved, lambda config: _from_archive(saved.path, config))


def of_parts(saved: Saved, weights: Path) -> LoadedModel:
    """Load a configuration and weights from HDF5. Raises UsageError."""

    def load(config: Any) -> Any:
        models = require("tf_keras").models
        model = models.model_from_json(json.dumps(config), custom_objects=_custom_objects())
        weights_file.fill(model, weights)
        return model

    return _loaded(saved, load)


def _loaded(saved: Saved, load: Callable[[Any], Any]) -> LoadedModel:
    try:
        # After mending: what only training needs may be the author's own, and is never built.
        refuse_foreign(config := _mended(saved.config))
        with quiet():
            model = load(config)
    except UsageError:
        raise
    # Keras raises whatever the user's file causes.
    except Exception as error:
        raise refusal(saved.path, error, "tf_keras") from error
    try:
        with quiet():
            rebuilt = keras2_rebuild.rebuilt(model)
            check(model, rebuilt)
        return LoadedModel(saved.name, rebuilt.model, notes=rebuilt.notes)
    # Whatever Keras 3 lacks or computes differently, the graph of tf_keras has it.
    except Exception as error:
        return _as_graph(saved, model, error)


def _as_graph(saved: Saved, model: Any, reason: Exception) -> LoadedModel:
    """Return the model as its graph. Raises UsageError where it has no graph of one image."""
    if len(model.inputs or ()) != 1:
        raise refusal(saved.path, reason, "tf_keras") from reason
    try:
        with quiet():
            graph = traced(model, saved.output)
            # A note states what was taken out of the graph on purpose.
            if len(model.outputs) == 1 and not graph.notes:
                compare(model, graph.model)
    except UsageError:
        raise
    except Exception as error:
        raise refusal(saved.path, error, "tf_keras") from error
    weights = "" if graph.notes else ", with stock int8 weights"
    why = f"Keras 3 can't hold its layers ({one_line(reason, 120)})"
    notes = (f"loaded as a graph{weights}: {why}", *graph.notes)
    return LoadedModel(saved.name, graph.model, notes=notes)


def _custom_objects() -> dict[str, Any]:
    """Return the stand-ins, and functions that early applications of Keras defined."""
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
                    content = weights_file.with_current_names(content)
                new.writestr(member, content)
        return models.load_model(copy, custom_objects=_custom_objects(), compile=False)


def _mended(config: Any) -> Any:
    """Return a configuration that tf_keras can read, for inference in float32."""
    if isinstance(config, list):
        return [_mended(each) for each in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "__numpy__":  # TensorFlow 2.12 writes a number so
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
