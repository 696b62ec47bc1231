"""Select one of several outputs or signatures, and walk back from it to remove its activation."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from kedge_convert.toolkit import require
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.errors import UsageError


def producer(tensor: Any) -> tuple[Any, Any]:
    """Return the operation that gives a symbolic tensor, and its first input (or None)."""
    operation, inputs = producer_and_inputs(tensor)
    return operation, next(iter(inputs), None)


def producer_and_inputs(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the operation that gives a symbolic tensor, and all its inputs there.

    Not `model.layers[-1]`: that skips keras.ops, and a nested model's `input` is its own.
    """
    history = tensor._keras_history
    inputs = history.operation._inbound_nodes[history.node_index].input_tensors
    return history.operation, list(inputs)


# A sigmoid is monotonic and elementwise: it gives the same before and after these.
_COMMUTING = frozenset({"Concatenate", "Maximum", "Minimum"})
# These give probabilities of probabilities, and no logits of logits.
_BLENDING = frozenset({"Average", "Multiply"})
_OTHERS = frozenset({"Add", "Dot", "Subtract"})
MERGES = _COMMUTING | _BLENDING | _OTHERS


def merged_kind(merge: str, kinds: Set[Kind | None]) -> Kind | None:
    """Return the output type of a merge of branches; None where the layers leave it open."""
    if kinds == {"features"}:
        return "features"
    if kinds <= {"logits", "features"}:
        return "logits"
    if kinds == {"sigmoid"} and merge in _COMMUTING | _BLENDING:
        return "sigmoid"
    # The mean of distributions is one; their maximum, product and concatenation are none.
    return "softmax" if kinds == {"softmax"} and merge == "Average" else None


def commutes(last: Any, kind: Kind | None) -> bool:
    """Whether the same merge of the branches' logits gives the logits of the whole."""
    is_layer = isinstance(last, require("keras").layers.Layer)
    return is_layer and kind == "sigmoid" and type(last).__name__ in _COMMUTING


# Keras activation -> the type of its output.
KINDS: dict[str, Kind] = {"softmax": "softmax", "sigmoid": "sigmoid", "linear": "logits"}
# Layers that keep their input's numbers: the activation may lie before them.
_PASS_THROUGH = frozenset({"Activation", "Dropout", "Flatten", "Identity", "Reshape"})
# Layers that end a network without its top; behind a last convolution, pooling gives logits.
_POOLING = frozenset({"GlobalAveragePooling2D", "GlobalMaxPooling2D"})
_OF_FEATURES = frozenset(
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

# Layers and nested models without their activation, by the model's id and its output's index.
Copies = dict[tuple[int, int], Any]


@dataclass(frozen=True)
class BareOutput:
    """An output `tensor` without its activation, where that could be `removed`.

    `kind`: the output type before. `certain`: a layer of Keras's own states the kind.
    """

    tensor: Any
    kind: Kind | None
    removed: bool = False
    certain: bool = False


def remove_activation(tensor: Any, copies: Copies) -> BareOutput:
    """Return an output without its activation."""
    last, first_input = producer(tensor)
    if hasattr(last, "layers"):
        return _in_nested(tensor, copies)
    kind = _kind_of(last)
    layer = type(last).__name__
    if layer in MERGES and len(producer_and_inputs(tensor)[1]) > 1:
        return _before_merge(tensor, copies)
    if layer in _PASS_THROUGH and kind == "logits":
        before = remove_activation(first_input, copies)
        return replace(before, tensor=last(before.tensor))
    if layer in _POOLING:
        before = remove_activation(first_input, copies)
        kind = "logits" if before.kind == "logits" else "features"
        return BareOutput(tensor, kind, certain=before.certain)
    if kind == "sigmoid" or (kind == "softmax" and _is_whole(tensor)):
        bare = _without_activation(last, copies)(first_input)
        return BareOutput(bare, kind, removed=True, certain=True)
    certain = kind == "softmax" or (kind == "logits" and _has_kernel(last))
    return BareOutput(tensor, kind, certain=certain)


def _in_nested(tensor: Any, copies: Copies) -> BareOutput:
    """Handle a nested model, which may have several outputs and be called twice."""
    last, inputs = producer_and_inputs(tensor)
    index = tensor._keras_history.tensor_index
    bare = remove_activation(last.outputs[index], copies)
    if (id(last), index) not in copies:
        inner = require("keras").Model(last.inputs, bare.tensor, name=last.name)
        copies[id(last), index] = inner
    return replace(bare, tensor=copies[id(last), index](inputs))


def _is_whole(tensor: Any) -> bool:
    """Whether a softmax's last axis has all the numbers of an image: then it is one softmax."""
    return set(tensor.shape[1:-1]) <= {1}


def _before_merge(tensor: Any, copies: Copies) -> BareOutput:
    """Handle merged branches; the result stays probabilities where it has no logits."""
    last, inputs = producer_and_inputs(tensor)
    branches = [remove_activation(each, copies) for each in inputs]
    kind = merged_kind(type(last).__name__, {branch.kind for branch in branches})
    certain = kind in ("softmax", "sigmoid") or all(branch.certain for branch in branches)
    if commutes(last, kind) and all(branch.removed for branch in branches):
        bare = last([branch.tensor for branch in branches])
        return BareOutput(bare, kind, removed=True, certain=True)
    return BareOutput(tensor, kind, certain=certain)


def _kind_of(last: Any) -> Kind | None:
    if hasattr(last, "graph_kind"):  # graph_layer.py
        kind: Kind | None = last.graph_kind()
        return kind
    activation = _activation_of(last)
    if type(last).__name__ in _OF_FEATURES or activation in _RECTIFIED:
        return "features"
    return KINDS.get(activation)


def _activation_of(last: Any) -> str:
    kind = type(last).__name__.lower()
    if kind in ("softmax", "sigmoid"):  # keras.layers.Softmax, keras.ops.softmax
        return kind
    activation = getattr(last, "activation", None) or require("keras").activations.linear
    return getattr(activation, "__name__", type(activation).__name__.lower())


def activation_name(model: Any) -> str:
    """Return the model's output activation, as messages name it."""
    tensor = model.outputs[0]
    last, _ = producer(tensor)
    while hasattr(last, "layers"):
        tensor = last.outputs[tensor._keras_history.tensor_index]
        last, _ = producer(tensor)
    if type(last).__name__ in MERGES:
        return f"hidden by {type(last).__name__}"
    return getattr(last, "last_operation", None) or _activation_of(last)


def _has_kernel(last: Any) -> bool:
    """Whether an output comes straight from a layer of Keras's own with weights.

    A layer of the user's own may compute anything from its kernel.
    """
    is_keras = type(last).__module__.startswith("keras.")
    return is_keras and getattr(last, "kernel", None) is not None


def _without_activation(last: Any, copies: Copies) -> Any:
    """Return an operation without its activation; the same copy at each call."""
    if hasattr(last, "without_activation"):  # graph_layer.py
        return last.without_activation()
    if not getattr(last, "weights", ()):
        return lambda tensor: tensor
    if (id(last), 0) not in copies:
        linear = type(last).from_config({**last.get_config(), "activation": "linear"})
        linear.build(last.get_build_config()["input_shape"])
        linear.set_weights(last.get_weights())
        copies[id(last), 0] = linear
    return copies[id(last), 0]


def choose(
    option: str, names: Sequence[str], requested: str | None, preferred: Sequence[str] = ()
) -> int:
    """Return the index of the `requested` name, else of the only one or of a preferred one.

    `option`: `output` or `signature`; its value may be an index. Raises UsageError, listing the
    names.
    """
    listed = f"its {option}s are {', '.join(names)}"
    if requested is not None:
        if requested in names:
            return list(names).index(requested)
        if requested.isdecimal() and int(requested) < len(names):
            return int(requested)
        raise UsageError(f"--{option} {requested}: the model has no such {option}; {listed}")
    if len(names) == 1:
        return 0
    for name in preferred:
        if name in names:
            return list(names).index(name)
    raise UsageError(f"{listed}: name one with --{option}, such as --{option} {names[0]}")


def select(model: Any, requested: str | None) -> Any:
    """Return the model with the `requested` output alone; a model of one output is unchanged.

    An output's name is its key in a dictionary, else its layer's name; its index is allowed, too.
    Raises UsageError for an unknown output, and where several need a choice.
    """
    outputs = getattr(model, "outputs", None) or ()
    if len(outputs) < 2:
        if requested is not None:
            raise UsageError(f"--output {requested}: the model has one output only; leave it out")
        return model
    index = choose("output", names(model), requested)
    # A list of one would have to be fed as a list.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return require("keras").Model(inputs, _tensor(model, index), name=model.name)


def _tensor(model: Any, index: int) -> Any:
    """Return an output tensor; a nested model of several outputs is reduced to this one."""
    tensor = model.outputs[index]
    last, inputs = producer_and_inputs(tensor)
    if len(getattr(last, "outputs", ())) < 2:
        return tensor
    inner = _tensor(last, tensor._keras_history.tensor_index)
    return require("keras").Model(last.inputs, inner, name=last.name)(inputs)


def names(model: Any) -> tuple[str, ...]:
    """Return the names of a Functional model's outputs, without repetition."""
    plain = [_name(model, i) for i in range(len(model.outputs))]
    # A layer may give two of them.
    return tuple(name if plain.count(name) == 1 else f"{name}:{i}" for i, name in enumerate(plain))


def _name(model: Any, index: int) -> str:
    """Return the key of an output, else the name of its layer."""
    structure = getattr(model, "_outputs_struct", None)
    paths = [path for path, _ in require("keras").tree.flatten_with_path(structure)]
    if isinstance(structure, dict) and all(isinstance(part, str) for part in paths[index]):
        return "/".join(paths[index])
    history = model.outputs[index]._keras_history
    inner = history.operation
    if len(getattr(inner, "outputs", ())) > 1:
        return _name(inner, history.tensor_index)
    return str(inner.name)
