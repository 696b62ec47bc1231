"""Choose one of several outputs or signatures."""

from collections.abc import Sequence
from typing import Any

from kedge_convert.load.activation_walk import branches
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError


def chosen(
    where: str, what: str, names: Sequence[str], asked: str | None, preferred: Sequence[str] = ()
) -> int:
    """Return the index of the name that was `asked` for, or else of the only or a preferred one.

    `what` is the option's name, `output` or `signature`; an index may be asked for, too. Raises
    UsageError that lists the names.
    """
    listed = f"its {what}s are {', '.join(names)}"
    if asked is not None:
        if asked in names:
            return list(names).index(asked)
        if asked.isdecimal() and int(asked) < len(names):
            return int(asked)
        raise UsageError(f"--{what} {asked}: {where} has no such {what}; {listed}")
    if len(names) == 1:
        return 0
    for name in preferred:
        if name in names:
            return list(names).index(name)
    raise UsageError(f"{where}: {listed}: name one with --{what}, such as --{what} {names[0]}")


def only(model: Any, asked: str | None, name: str) -> Any:
    """Return the model with the one output that was `asked` for; it itself where it has but one.

    An output is called as its key in a dictionary, else as the layer that gives it; its index does,
    too. `name` is for messages. Raises UsageError for no such output, and where none is asked for.
    """
    outputs = getattr(model, "outputs", None) or ()
    if len(outputs) < 2:
        if asked is not None:
            raise UsageError(f"--output {asked}: {name} has one output only; leave it out")
        return model
    index = chosen(name, "output", names(model), asked)
    # A list of one would have to be fed as a list.
    taken = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return require("keras").Model(taken, _tensor(model, index), name=model.name)


def _tensor(model: Any, index: int) -> Any:
    """Return an output; of a nested model that gives several, only this one is left."""
    tensor = model.outputs[index]
    last, taken = branches(tensor)
    if len(getattr(last, "outputs", ())) < 2:
        return tensor
    given = _tensor(last, tensor._keras_history.tensor_index)
    return require("keras").Model(last.inputs, given, name=last.name)(taken)


def names(model: Any) -> tuple[str, ...]:
    """Return what the outputs of a Functional model are called, each name once."""
    called = [_called(model, i) for i in range(len(model.outputs))]
    # A layer may give two of them.
    return tuple(
        each if called.count(each) == 1 else f"{each}:{i}" for i, each in enumerate(called)
    )


def _called(model: Any, index: int) -> str:
    """Return the key of an output, or else the name of the layer that gives it."""
    structure = getattr(model, "_outputs_struct", None)
    paths = [path for path, _ in require("keras").tree.flatten_with_path(structure)]
    if isinstance(structure, dict) and all(isinstance(part, str) for part in paths[index]):
        return "/".join(paths[index])
    history = model.outputs[index]._keras_history
    inner = history.operation
    if len(getattr(inner, "outputs", ())) > 1:
        return _called(inner, history.tensor_index)
    return str(inner.name)
