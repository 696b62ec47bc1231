"""Where a symbolic tensor comes from."""

from typing import Any


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
