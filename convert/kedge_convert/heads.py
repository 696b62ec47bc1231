"""The end of a classifier: is it one, and where are its logits?"""

from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.contract import Activation
from kedge_runtime.errors import UsageError
from kedge_runtime.head import Floats

# Keras activation -> what the runtime does instead, in float. A linear end is already logits.
_ACTIVATIONS: dict[str, Activation] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "linear": "softmax",
}
# Layers that hand on the numbers they are given: the activation may lie before them.
_HANDING_ON = frozenset({"Activation", "Dropout", "Flatten", "Identity", "Reshape"})


def check_classifier(model: Any, name: str) -> tuple[int, int, int]:
    """Return (height, width, classes). Raises UsageError when `model` is no image classifier."""
    # A Sequential model without keras.Input has no inputs at all until it is called.
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if len(inputs or ()) != 1 or len(outputs or ()) != 1:
        raise UsageError(f"{name}: no classifier: it needs one keras.Input and one output")
    taken, given = tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    if len(taken) != 4 or taken[3] != 3:
        raise UsageError(f"{name}: no image classifier: input is {taken}, not (n, h, w, 3)")
    if None in taken[1:]:
        raise UsageError(f"{name}: its input size {taken} is open: save it with a fixed size")
    if len(given) != 2 or given[1] is None or given[1] < 2:
        raise UsageError(f"{name}: no classifier: output is {given}, not (n, two or more classes)")
    return taken[1], taken[2], given[1]


def check_logits(logits: Floats, name: str) -> None:
    """Raise UsageError when the logits are probabilities: they would be softmaxed twice.

    The layers tell of every activation but one inside a Lambda or a layer of the user's own.
    """
    if logits.min() >= 0 and abs(logits.sum(axis=1) - 1).max() < 1e-3:
        raise UsageError(
            f"{name}: its answers are probabilities, but its last layer isn't an activation that "
            "can be taken off: end it in a softmax layer or in logits"
        )


def to_logits(model: Any, name: str) -> tuple[Any, Activation]:
    """Return the model without its last activation, and what that activation was.

    Softmax runs in float on the device: as an int8 tensor it would zero every probability below
    1/512. Raises UsageError for an activation that can't be undone.
    """
    logits, activation = _undo(model.outputs[0], name)
    # Built anew even when nothing was taken off: whatever names they had, one tensor in, one out.
    return require("keras").Model(model.inputs[0], logits, name=model.name), activation


def _undo(tensor: Any, name: str) -> tuple[Any, Activation]:
    """Return the logits behind a symbolic `tensor`, and the activation that lay between."""
    last, taken = _origin(tensor)
    if hasattr(last, "layers"):
        inner, activation = to_logits(last, name)
        return inner(taken), activation
    kind = _activation_of(last)
    if type(last).__name__ in _HANDING_ON and kind == "linear":
        before, activation = _undo(taken, name)
        return last(before), activation
    if kind not in _ACTIVATIONS:
        allowed = ", ".join(_ACTIVATIONS)
        raise UsageError(f"{name}: its last activation is {kind}; allowed are {allowed}")
    return _without(tensor, last, taken, kind), _ACTIVATIONS[kind]


def _origin(tensor: Any) -> tuple[Any, Any]:
    """Return the operation that gives a symbolic tensor, and what it takes there (or None).

    Not `model.layers[-1]`: that passes over keras.ops, and a nested model's `input` is its own.
    """
    history = tensor._keras_history
    taken = history.operation._inbound_nodes[history.node_index].input_tensors
    return history.operation, next(iter(taken), None)


def _activation_of(last: Any) -> str:
    kind = type(last).__name__.lower()
    if kind in ("softmax", "sigmoid"):  # keras.layers.Softmax, keras.ops.softmax
        return kind
    activation = getattr(last, "activation", None) or require("keras").activations.linear
    return getattr(activation, "__name__", type(activation).__name__.lower())


def _without(tensor: Any, last: Any, taken: Any, kind: str) -> Any:
    """Return what `tensor` is without the activation of the operation `last` that gives it."""
    if kind == "linear":
        return tensor
    if not getattr(last, "weights", ()):
        return taken
    linear = type(last).from_config({**last.get_config(), "activation": "linear"})
    logits = linear(taken)
    linear.set_weights(last.get_weights())
    return logits
