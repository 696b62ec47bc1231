"""Compute small lists of integers from known ones: graphs compute their own shapes and axes."""

import math
from collections.abc import Callable

import numpy as np

from kedge_runtime.inspect.onnx_shapes import Shapes, Step
from kedge_runtime.inspect.onnx_values import Integers

Fold = Callable[[Step], Integers]


def fold(step: Step, shapes: Shapes) -> Integers | None:
    """Return the numbers of a small list that other known lists tell, or None."""
    kind = FOLDS.get(step.node.kind)
    if kind is None or math.prod(shapes[0]) > 1024:
        return None
    if step.node.kind != "Shape" and any(v is not None and v.held is None for v in step.takes):
        return None
    try:
        found = np.asarray(kind(step), np.int64)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError):
        return None
    return found if found.shape == tuple(shapes[0]) else None


def _held(step: Step, place: int) -> Integers:
    held = step.value(place).held
    if held is None:
        raise ValueError("not known")
    return held


def _divided(step: Step) -> Integers:
    """Return a quotient, or with the operator Mod the rest."""
    if not _held(step, 1).all():
        raise ValueError("a division by zero")
    quotient, rest = np.divmod(_held(step, 0), _held(step, 1))
    return rest if step.node.kind == "Mod" else quotient


def _sliced(step: Step) -> Integers:
    values = _held(step, 0)
    steps = step.list(4) if step.given(4) else None
    begin, end, stride = step.list(1)[0], step.list(2)[0], steps[0] if steps else 1
    return values[begin:end:stride]


FOLDS: dict[str, Fold] = {
    "Shape": lambda step: np.array(step.shape(), np.int64)[
        step.attribute("start") : step.node.integers.get("end", (None,))[0]
    ],
    "Gather": lambda step: np.take(_held(step, 0), _held(step, 1), axis=step.attribute("axis")),
    "Slice": _sliced,
    "Concat": lambda step: np.concatenate([_held(step, i) for i in range(len(step.takes))]),
    "Unsqueeze": lambda step: _held(step, 0).reshape(-1)[: _held(step, 0).size],
    "Squeeze": lambda step: _held(step, 0).reshape(()),
    "Cast": lambda step: _held(step, 0),
    "Identity": lambda step: _held(step, 0),
    "Add": lambda step: _held(step, 0) + _held(step, 1),
    "Sub": lambda step: _held(step, 0) - _held(step, 1),
    "Mul": lambda step: _held(step, 0) * _held(step, 1),
    "Div": _divided,
    "Mod": _divided,
    "ReduceProd": lambda step: _held(step, 0).prod(keepdims=bool(step.attribute("keepdims", 1))),
}
