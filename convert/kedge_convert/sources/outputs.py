"""One output of a Keras model that has several."""

from typing import Any

from kedge_convert.sources.choice import chosen
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError


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
    return require("keras").Model(model.inputs, outputs[index], name=model.name)


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
