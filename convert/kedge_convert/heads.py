"""The end of a classifier: is it one, and where are its logits?"""

from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.contract import Activation
from kedge_runtime.errors import UsageError

# Keras activation -> what the runtime does instead, in float. A linear end is already logits.
_ACTIVATIONS: dict[str, Activation] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "linear": "softmax",
}


def check_classifier(model: Any, name: str) -> tuple[int, int, int]:
    """Return (height, width, classes). Raises UsageError when `model` is no image classifier."""
    if len(model.inputs or ()) != 1 or len(model.outputs or ()) != 1:
        raise UsageError(f"{name}: no classifier: it needs one input and one output")
    taken, given = tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    if len(taken) != 4 or taken[3] != 3:
        raise UsageError(f"{name}: no image classifier: input is {taken}, not (n, h, w, 3)")
    if None in taken[1:]:
        raise UsageError(f"{name}: its input size {taken} is open: save it with a fixed size")
    if len(given) != 2 or given[1] is None or given[1] < 2:
        raise UsageError(f"{name}: no classifier: output is {given}, not (n, two or more classes)")
    return taken[1], taken[2], given[1]


def to_logits(model: Any, name: str) -> tuple[Any, Activation]:
    """Return the model without its last activation, and what that activation was.

    Softmax runs in float on the device: as an int8 tensor it would zero every probability below
    1/512. Raises UsageError for an activation that can't be undone.
    """
    keras = require("keras")
    last = model.layers[-1]
    if hasattr(last, "layers"):
        inner, activation = to_logits(last, name)
        return keras.Model(model.inputs, inner(last.input), name=model.name), activation
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(model.inputs, last.input, name=model.name), "softmax"
    kind = keras.activations.serialize(getattr(last, "activation", keras.activations.linear))
    if kind not in _ACTIVATIONS:
        allowed = ", ".join(_ACTIVATIONS)
        raise UsageError(f"{name}: its last activation is {kind}; allowed are {allowed}")
    return _without(keras, model, last, kind), _ACTIVATIONS[kind]


def _without(keras: Any, model: Any, last: Any, kind: str) -> Any:
    """Return `model` with the activation of its layer `last` made linear."""
    if kind == "linear":
        return model
    if isinstance(last, keras.layers.Activation):
        return keras.Model(model.inputs, last.input, name=model.name)
    linear = type(last).from_config({**last.get_config(), "activation": "linear"})
    outputs = linear(last.input)
    linear.set_weights(last.get_weights())
    return keras.Model(model.inputs, outputs, name=model.name)
