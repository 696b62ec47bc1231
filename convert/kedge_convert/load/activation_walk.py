"""Walk back from a classifier's output and take its activation off."""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.artefact.contract import Kind


def origin(tensor: Any) -> tuple[Any, Any]:
    """Return the operation that gives a symbolic tensor, and what it takes first (or None)."""
    operation, taken = branches(tensor)
    return operation, next(iter(taken), None)


def branches(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the operation that gives a symbolic tensor, and all that it takes there.

    Not `model.layers[-1]`: that passes over keras.ops, and a nested model's `input` is its own.
    """
    history = tensor._keras_history
    taken = history.operation._inbound_nodes[history.node_index].input_tensors
    return history.operation, list(taken)


# A sigmoid is taken of each number and grows with it: whether it comes first or last is the same.
_COMMUTING = frozenset({"Concatenate", "Maximum", "Minimum"})
# These give probabilities of probabilities, and no logits of logits.
_BLENDING = frozenset({"Average", "Multiply"})
_OTHERS = frozenset({"Add", "Dot", "Subtract"})
MERGES = _COMMUTING | _BLENDING | _OTHERS


def merged_kind(merge: str, kinds: Set[Kind | None]) -> Kind | None:
    """Return what a merge of branches of these kinds gives; None where the layers can't tell."""
    if kinds == {"features"}:
        return "features"
    if kinds <= {"logits", "features"}:
        return "logits"
    if kinds == {"sigmoid"} and merge in _COMMUTING | _BLENDING:
        return "sigmoid"
    # A mean of distributions is one; their largest, their product and their row are none.
    return "softmax" if kinds == {"softmax"} and merge == "Average" else None


def commutes(last: Any, kind: Kind | None) -> bool:
    """Whether the same merge of the branches' logits gives the logits of the whole."""
    layer = isinstance(last, require("keras").layers.Layer)
    return layer and kind == "sigmoid" and type(last).__name__ in _COMMUTING


# Keras activation -> what the numbers are behind it.
KINDS: dict[str, Kind] = {"softmax": "softmax", "sigmoid": "sigmoid", "linear": "logits"}
# Layers that hand on the numbers they are given: the activation may lie before them.
_HANDING_ON = frozenset({"Activation", "Dropout", "Flatten", "Identity", "Reshape"})
# Layers that end a body without its top; behind a last convolution, pooling gives logits, though.
_POOLING = frozenset({"GlobalAveragePooling2D", "GlobalMaxPooling2D"})
_BODIES = frozenset(
    {
        "AveragePooling2D",
        "BatchNormalization",
        "LayerNormalization",
        "LeakyReLU",
        "MaxPooling2D",
        "PReLU",
        "ReLU",
        "UnitNormalization",
    }
)
_RECTIFIED = frozenset({"relu", "relu6", "silu", "gelu", "elu", "hard_silu", "leaky_relu"})

# Layers and nested models without their activation, by the original's id and its output's index.
Copies = dict[tuple[int, int], Any]


@dataclass(frozen=True)
class OutputEnd:
    """`tensor` without an activation that could be taken off (`cut`), and what it was before.

    `told`: the kind is certain, as a layer of Keras's own says it.
    """

    tensor: Any
    kind: Kind | None
    cut: bool = False
    told: bool = False


def undo(tensor: Any, copies: Copies) -> OutputEnd:
    """Return the end of a model that gives `tensor`."""
    last, taken = origin(tensor)
    if hasattr(last, "layers"):
        return _undo_nested(tensor, copies)
    kind = _kind_of(last)
    layer = type(last).__name__
    if layer in MERGES and len(branches(tensor)[1]) > 1:
        return _undo_merge(tensor, copies)
    if layer in _HANDING_ON and kind == "logits":
        before = undo(taken, copies)
        return replace(before, tensor=last(before.tensor))
    if layer in _POOLING:
        before = undo(taken, copies)
        kind = "logits" if before.kind == "logits" else "features"
        return OutputEnd(tensor, kind, told=before.told)
    if kind == "sigmoid" or (kind == "softmax" and _is_whole(tensor)):
        return OutputEnd(_without(last, copies)(taken), kind, cut=True, told=True)
    return OutputEnd(tensor, kind, told=kind == "softmax" or (kind == "logits" and _weighs(last)))


def _undo_nested(tensor: Any, copies: Copies) -> OutputEnd:
    """Return the end of a nested model, which may have several outputs and be called twice."""
    last, taken = branches(tensor)
    index = tensor._keras_history.tensor_index
    end = undo(last.outputs[index], copies)
    if (id(last), index) not in copies:
        inner = require("keras").Model(last.inputs, end.tensor, name=last.name)
        copies[id(last), index] = inner
    return replace(end, tensor=copies[id(last), index](taken))


def _is_whole(tensor: Any) -> bool:
    """Whether a softmax's last axis has all the numbers of a picture: then it is one softmax."""
    return set(tensor.shape[1:-1]) <= {1}


def _undo_merge(tensor: Any, copies: Copies) -> OutputEnd:
    """Return the end of several heads in one; where it has no logits, it gives probabilities."""
    last, taken = branches(tensor)
    ends = [undo(each, copies) for each in taken]
    kind = merged_kind(type(last).__name__, {end.kind for end in ends})
    told = kind in ("softmax", "sigmoid") or all(end.told for end in ends)
    if commutes(last, kind) and all(end.cut for end in ends):
        return OutputEnd(last([end.tensor for end in ends]), kind, cut=True, told=True)
    return OutputEnd(tensor, kind, told=told)


def _kind_of(last: Any) -> Kind | None:
    if hasattr(last, "graph_kind"):  # graph_layer.py
        kind: Kind | None = last.graph_kind()
        return kind
    activation = _activation_of(last)
    if type(last).__name__ in _BODIES or activation in _RECTIFIED:
        return "features"
    return KINDS.get(activation)


def _activation_of(last: Any) -> str:
    kind = type(last).__name__.lower()
    if kind in ("softmax", "sigmoid"):  # keras.layers.Softmax, keras.ops.softmax
        return kind
    activation = getattr(last, "activation", None) or require("keras").activations.linear
    return getattr(activation, "__name__", type(activation).__name__.lower())


def word(model: Any) -> str:
    """Return what the user calls the model's last activation."""
    tensor = model.outputs[0]
    last, _ = origin(tensor)
    while hasattr(last, "layers"):
        tensor = last.outputs[tensor._keras_history.tensor_index]
        last, _ = origin(tensor)
    if type(last).__name__ in MERGES:
        return f"hidden by {type(last).__name__}"
    return getattr(last, "end_word", None) or _activation_of(last)


def _weighs(last: Any) -> bool:
    """Whether the numbers come straight from a layer of Keras's with weights.

    A layer of the user's own may compute anything from its kernel.
    """
    own = type(last).__module__.startswith("keras.")
    return own and getattr(last, "kernel", None) is not None


def _without(last: Any, copies: Copies) -> Any:
    """Return the operation `last` without its activation; the same one each time it is asked."""
    if hasattr(last, "without_activation"):  # graph_layer.py
        return last.without_activation()
    if not getattr(last, "weights", ()):
        return lambda taken: taken
    if (id(last), 0) not in copies:
        linear = type(last).from_config({**last.get_config(), "activation": "linear"})
        linear.build(last.get_build_config()["input_shape"])
        linear.set_weights(last.get_weights())
        copies[id(last), 0] = linear
    return copies[id(last), 0]
