"""Rebuild a tf_keras model as a flat model of Keras 3."""

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

from kedge_convert.load import keras2_operations, tfmot
from kedge_convert.toolkit import require

PACKAGE = "kedge"


def registered(thing: Any) -> Any:
    """Register a function or class of ours, so that Keras can save and load it; return it."""
    saving = require("keras").saving
    if saving.get_registered_object(f"{PACKAGE}>{thing.__name__}") is None:
        saving.register_keras_serializable(PACKAGE)(thing)
    return thing


_RENAMED = {"SyncBatchNormalization": "BatchNormalization"}
# Arguments that have another name in Keras 3.
_ARGUMENTS = {("LeakyReLU", "alpha"): "negative_slope"}
_ACTIVATIONS = ("activation", "recurrent_activation")
_WRAPPED = ("layer", "backward_layer", "cell")  # of Bidirectional, TimeDistributed, RNN
_OF_TRAINING = ("_initializer", "_regularizer", "_constraint")


def counterpart(layer: Any, name: str) -> Any:
    """Return the layer of Keras 3, not built. Raises ValueError where there is none.

    An argument that Keras 3 doesn't know is skipped: keras2.check decides whether it mattered.
    """
    kind = _RENAMED.get(type(layer).__name__, type(layer).__name__)
    new = getattr(require("keras").layers, kind, None)
    if new is None or not type(layer).__module__.startswith("tf_keras."):
        raise ValueError(f"the layer {type(layer).__name__} isn't in Keras 3")
    known = inspect.signature(new.__init__).parameters
    config = {
        _ARGUMENTS.get((kind, key), key): value
        for key, value in layer.get_config().items()
        if not key.endswith(_OF_TRAINING)
    }
    config |= {key: _activation(getattr(layer, key)) for key in _ACTIVATIONS if key in config}
    for key in config.keys() & _WRAPPED:
        config[key] = counterpart(getattr(layer, key), getattr(layer, key).name)
    if isinstance(axis := config.get("axis"), list | tuple) and len(axis) == 1:
        (config["axis"],) = axis
    return new(**{key: config[key] for key in config if key in known} | {"name": name})


def copy_weights(layer: Any, new: Any) -> None:
    """Copy the weights of a layer into its counterpart, both built."""
    weights = layer.get_weights()
    if type(layer).__name__ == "Normalization":
        # It derives its constants when weights are loaded, not when they are set.
        new.load_own_variables({str(i): weight for i, weight in enumerate(weights)})
    else:
        new.set_weights(weights)


def hard_sigmoid(value: Any) -> Any:
    """Return clip(0.2 x + 0.5, 0, 1), Keras 1's and 2's; Keras 3 has clip(x / 6 + 0.5, 0, 1)."""
    # https://github.com/keras-team/keras/pull/18250
    return require("keras").ops.clip(0.2 * value + 0.5, 0.0, 1.0)


def _activation(activation: Any) -> Any:
    """Return Keras 3's activation for a layer's, a function or a layer of tf_keras."""
    if hasattr(activation, "get_config"):
        return counterpart(activation, activation.name)
    name = activation.__name__
    return registered(hard_sigmoid) if name == "hard_sigmoid" else name


# Layers that return their input, unless the model is being trained.
_TRAINING = frozenset(
    {
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "InputLayer",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
    }
)
_RANDOM = "Random"
_CROP = "RandomCrop"
_NO_SCOPE = re.compile(r"^[^A-Za-z0-9.]|[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class Rebuilt:
    """`model`, of Keras 3; `last`: the layers of the first output, in tf_keras and in Keras 3.

    `last` is empty where no layer gives it. `notes`: lines for the user.
    """

    model: Any
    last: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()


def rebuilt(model: Any) -> Rebuilt:
    """Return a Functional or Sequential model of tf_keras as a Keras 3 model, with its weights.

    Raises ValueError for layers and functions that Keras 3 lacks, and whatever Keras 3 raises.
    """
    keras, walk = require("keras"), _Rebuild()
    inputs = [
        keras.Input(batch_shape=tuple(each.shape), dtype="float32", name=walk.free_name(each.name))
        for each in model.inputs
    ]
    outputs = require("tensorflow").nest.flatten(walk.through(model, inputs))
    flat = keras.Model(_unpacked(inputs), _unpacked(outputs), name=_cleaned(model.name))
    last = outputs[0]._keras_history.operation
    pairs = ((old, new) for old, new in walk.layers.values() if new is last)
    return Rebuilt(flat, next(pairs, ()), walk.notes())


@dataclass
class _Rebuild:
    """The state of a walk through a model: `layers` are old and new ones by the old one's id."""

    layers: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    pruned: int = 0

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user on skipped layers."""
        random = [skipped_note(self.skipped)] if self.skipped else []
        return (*random, *(["pruning wrappers stripped"] if self.pruned else []))

    def through(self, model: Any, values: list[Any]) -> Any:
        """Run a model of tf_keras on tensors of Keras 3."""
        if isinstance(model, require("tf_keras").Sequential):
            (value,) = values
            for layer in model.layers:
                value = self.call(layer, (value,), {})
            return value
        # As tf_keras's own Functional runs its graph; a tensor is popped once a use.
        uses, tensors = model._tensor_usage_count, dict[str, list[Any]]()
        for key, value in zip(map(_key, model.inputs), values, strict=True):
            tensors[key] = [value] * uses[key]
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    args, kwargs = node.map_arguments(tensors)
                    results = self.call(node.layer, args, kwargs)
                    flat = require("tensorflow").nest.flatten(results)
                    for key, value in zip(map(str, node.flat_output_ids), flat, strict=True):
                        tensors[key] = [value] * uses[key]
        return _unpacked([tensors[_key(each)].pop() for each in model.outputs])

    def call(self, layer: Any, args: Any, kwargs: Any) -> Any:
        """Run a layer of tf_keras, of any kind, on tensors of Keras 3."""
        kind = type(layer).__name__
        if hasattr(layer, "_nodes_by_depth") or isinstance(layer, require("tf_keras").Sequential):
            return self.through(layer, require("tensorflow").nest.flatten(args))
        if kind == tfmot.PRUNING:
            self.pruned += 1
            return self.call(layer.layer, args, kwargs)
        if kind.startswith(_RANDOM):
            self.skipped.append(kind)
        if kind == _CROP:
            return self._resized(layer, args[0])
        if kind in _TRAINING or kind.startswith(_RANDOM):
            return args[0]
        arguments = {key: kwargs[key] for key in kwargs if key not in ("training", "mask")}
        if kind in keras2_operations.KINDS:
            return keras2_operations.call(layer, args, arguments, self.free_name)
        return self._counterpart(layer, args, arguments)

    def _resized(self, crop: Any, images: Any) -> Any:
        """Return the output of Keras 2's RandomCrop out of training: its `smart_resize`."""
        if tuple(images.shape[1:3]) == (crop.height, crop.width):
            return images
        name = self.free_name(crop.name)
        resizing = require("keras").layers.Resizing
        return resizing(crop.height, crop.width, crop_to_aspect_ratio=True, name=name)(images)

    def _counterpart(self, layer: Any, args: Any, kwargs: Any) -> Any:
        if id(layer) in self.layers:
            return self.layers[id(layer)][1](*args, **kwargs)
        new = counterpart(layer, self.free_name(layer.name))
        self.layers[id(layer)] = (layer, new)
        value = new(*args, **kwargs)
        copy_weights(layer, new)
        return value

    def free_name(self, name: str) -> str:
        """Return an unused name that TensorFlow allows."""
        name = _cleaned(name)
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name


def skipped_note(kinds: list[str]) -> str:
    """Return one line about skipped layers that augment images."""
    return f"training-only layers skipped: {', '.join(dict.fromkeys(kinds))}"


def _unpacked(tensors: list[Any]) -> Any:
    return tensors if len(tensors) > 1 else tensors[0]


def _key(tensor: Any) -> str:
    return str(id(tensor))


def _cleaned(name: str) -> str:
    return _NO_SCOPE.sub("_", name.replace("/", "_")).lstrip("_") or "layer"
