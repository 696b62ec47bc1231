"""Check what TFLite's operators of control call: subgraphs that fit, and loops that end."""

from collections.abc import Callable
from typing import NamedTuple

from kedge_runtime.inspect import tflite_fields as tflite
from kedge_runtime.inspect.tflite_shapes import Step, Tensor, UnsoundError
from kedge_runtime.inspect.tflite_tensors import Graph, Model

MAX_ROUNDS = 4096  # of a loop: a recurrent network takes one a row


class Call(NamedTuple):
    """A subgraph that an operator runs, and at most how often."""

    place: int
    times: int = 1


def branches(step: Step, model: Model) -> list[Call]:
    """IF: a condition, and what both subgraphs take and give."""
    then, other = (_called(model, step.number(field)) for field in (0, 1))
    for graph in (then, other):
        _fit(step.takes[1:], [graph.tensors[i] for i in graph.inputs])
        _fit(step.gives, [graph.tensors[i] for i in graph.outputs])
    _condition(step.takes[0] if step.takes else None)
    return [Call(step.number(0)), Call(step.number(1))]


def loop(step: Step, model: Model) -> list[Call]:
    """WHILE: as long as a counter is below a constant."""
    condition, body = (_called(model, step.number(field)) for field in (0, 1))
    for graph in (condition, body):
        _fit(step.takes, [graph.tensors[i] for i in graph.inputs])
    _fit(step.gives, [body.tensors[i] for i in body.outputs])
    _fit(step.takes, step.gives)
    if len(condition.outputs) != 1:
        raise UnsoundError("its condition is no truth value")
    _condition(condition.tensors[condition.outputs[0]])
    times = _rounds(step, condition, body, model)
    return [Call(step.number(0), times + 1), Call(step.number(1), times)]


def _called(model: Model, place: int) -> Graph:
    if not 0 < place < len(model.graphs):
        raise UnsoundError(f"it calls subgraph {place} of {len(model.graphs)}")
    return model.graphs[place]


def _fit(given: list[Tensor | None] | list[Tensor], wanted: list[Tensor]) -> None:
    found = [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in given]
    if found != [(tensor.shape, tensor.dtype) for tensor in wanted]:
        raise UnsoundError("its subgraphs take or give other tensors")
    if any(tensor is not None and tensor.variable for tensor in given):
        raise UnsoundError("it takes a variable")


def _condition(tensor: Tensor | None) -> None:
    if tensor is None or tensor.dtype != "bool" or tensor.elements != 1:
        raise UnsoundError("its condition is no truth value")


def _rounds(step: Step, condition: Graph, body: Graph, model: Model) -> int:
    """Return the bound: the condition is LESS of a counter, alone or joined by LOGICAL_AND."""
    made = {out: each for each in _calls(condition, model) for out in each[2]}
    pending, bounds = [condition.outputs[0]], []
    while pending and len(made) < 1000:
        kind, takes, _ = made.pop(pending.pop(), ("", (), ()))
        if kind == "LOGICAL_AND":
            pending += takes
        elif kind == "LESS" and len(takes) == 2:
            bounds.append(_bound(step, condition, body, model, takes))
    found = [bound for bound in bounds if bound is not None]
    if not found or min(found) > MAX_ROUNDS:
        raise UnsoundError("its loop has no bound that the file states")
    return min(found)


def _bound(
    step: Step, condition: Graph, body: Graph, model: Model, takes: tuple[int, ...]
) -> int | None:
    """Return how often `counter < limit` can hold, None where the file doesn't tell."""
    if takes[0] not in condition.inputs:
        return None
    place = condition.inputs.index(takes[0])
    counter = step.takes[place]
    begin = None if counter is None else counter.integers()
    limit = condition.tensors[takes[1]].integers()
    if limit is None and takes[1] in condition.inputs:
        at = condition.inputs.index(takes[1])
        tensor = step.takes[at]
        unchanged = body.outputs[at] == body.inputs[at]
        limit = tensor.integers() if tensor is not None and unchanged else None
    if not begin or not limit or len(begin) != 1 or len(limit) != 1:
        return None
    made = {out: each for each in _calls(body, model) for out in each[2]}
    kind, added, _ = made.get(body.outputs[place], ("", (), ()))
    if kind != "ADD" or body.inputs[place] not in added or len(added) != 2:
        return None
    other = added[1] if added[0] == body.inputs[place] else added[0]
    more = body.tensors[other].integers()
    if not more or more[0] < 1:
        return None
    return max(0, -(-(limit[0] - begin[0]) // more[0]))


def _calls(graph: Graph, model: Model) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return [
        (
            model.codes[table.number(tflite.OPCODE, "I")][0],
            table.numbers(tflite.TAKES, "i"),
            table.numbers(tflite.GIVES, "i"),
        )
        for table in graph.operators
    ]


FLOWS: dict[str, Callable[[Step, Model], list[Call]]] = {"IF": branches, "WHILE": loop}
FLOW_OPTIONS = {"IF": 92, "WHILE": 93}
