"""Layers of Keras 3 for those of tf_keras."""

import inspect
from typing import Any

from kedge_convert.sources.registered import registered
from kedge_convert.toolkit import require

_RENAMED = {"SyncBatchNormalization": "BatchNormalization"}
# Arguments that have another name in Keras 3.
_ARGUMENTS = {("LeakyReLU", "alpha"): "negative_slope"}
_ACTIVATIONS = ("activation", "recurrent_activation")
_WRAPPED = ("layer", "backward_layer", "cell")  # of Bidirectional, TimeDistributed, RNN
_TRAINING = ("_initializer", "_regularizer", "_constraint")


def counterpart(layer: Any, name: str) -> Any:
    """Return the layer of Keras 3, not built. Raises ValueError where there is none.

    An argument that Keras 3 doesn't know is left out: judge.py tells whether it mattered.
    """
    kind = _RENAMED.get(type(layer).__name__, type(layer).__name__)
    new = getattr(require("keras").layers, kind, None)
    if new is None or not type(layer).__module__.startswith("tf_keras."):
        raise ValueError(f"the layer {type(layer).__name__} isn't in Keras 3")
    known = inspect.signature(new.__init__).parameters
    config = {
        _ARGUMENTS.get((kind, key), key): value
        for key, value in layer.get_config().items()
        if not key.endswith(_TRAINING)
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
        # It derives what it uses from its weights as these are loaded, not as they are set.
        new.load_own_variables({str(i): weight for i, weight in enumerate(weights)})
    else:
        new.set_weights(weights)


def hard_sigmoid(value: Any) -> Any:
    """Return clip(0.2 x + 0.5, 0, 1), Keras 1's and 2's; Keras 3 has clip(x / 6 + 0.5, 0, 1)."""
    # https://github.com/keras-team/keras/pull/18250
    return require("keras").ops.clip(0.2 * value + 0.5, 0.0, 1.0)


def _activation(activation: Any) -> Any:
    """Return a layer's activation, a function or a layer of tf_keras, in Keras 3's words."""
    if hasattr(activation, "get_config"):
        return counterpart(activation, activation.name)
    name = activation.__name__
    return registered(hard_sigmoid) if name == "hard_sigmoid" else name
