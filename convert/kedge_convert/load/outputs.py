"""Select one of several outputs or signatures."""

from collections.abc import Sequence
from typing import Any

from kedge_convert.load.activation_walk import producer_and_inputs
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError


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
