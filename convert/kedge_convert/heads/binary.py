"""A single number that tells two classes apart, as the two that everything else knows."""

from typing import Any

import numpy as np

from kedge_convert.heads.origins import origin
from kedge_convert.toolkit import require


def two_logits(model: Any) -> Any:
    """Return a model of logits [n, 2] for one of a logit z, [n, 1]: -z/2 and z/2.

    Their softmax is (1 - p, p) with p = sigmoid(z), exactly: halving is exact in binary floats.
    Both halves have the same range, so that both get the same steps as integers.
    """
    keras = require("keras")
    last, taken = origin(model.outputs[0])
    # The number may come through a Reshape, a nested model, or an activation of its own.
    if type(last).__name__ != "Dense" or last.activation is not keras.activations.linear:
        last, taken = _passed_on(model), model.outputs[0]
    kernel, *bias = (np.asarray(weight) for weight in last.get_weights())
    config = {**last.get_config(), "units": 2, "activation": "linear"}
    wide = type(last).from_config(config)
    logits = wide(taken)
    wide.set_weights([np.concatenate([-each, each], axis=-1) / 2 for each in (kernel, *bias)])
    return keras.Model(model.inputs[0], logits, name=model.name)


def two_probabilities(model: Any) -> Any:
    """Return a model of (1 - p, p), [n, 2], for one of a probability p, [n, 1]."""
    keras = require("keras")
    layer = keras.layers.Dense(2, name=free_name(model, "two_classes"))
    given = layer(model.outputs[0])
    layer.set_weights([np.array([[-1, 1]], np.float32), np.array([1, 0], np.float32)])
    return keras.Model(model.inputs[0], given, name=model.name)


def _passed_on(model: Any) -> Any:
    """Return a dense layer that gives the one number it takes."""
    layer = require("keras").layers.Dense(1, use_bias=False, name=free_name(model, "two_classes"))
    layer.build((None, 1))
    layer.set_weights([np.ones((1, 1), np.float32)])
    return layer


def free_name(model: Any, name: str) -> str:
    """Return a name that no layer of a model has."""
    taken = {layer.name for layer in model.layers}
    while name in taken:
        name += "_"
    return name
