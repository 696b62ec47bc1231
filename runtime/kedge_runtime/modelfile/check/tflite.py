"""Check the facts of a .tflite file that LiteRT trusts: operands, types, shapes, loops, memory."""

from collections.abc import Callable
from typing import NamedTuple

from kedge_runtime.modelfile import tflite_schema as tflite
from kedge_runtime.modelfile.check.tflite_graph import (
    MAX_MEMORY,
    Subgraph,
    TfliteModel,
    check_step,
    read_model,
    scratch,
    work,
)
from kedge_runtime.modelfile.check.tflite_rules import RULES
from kedge_runtime.modelfile.check.tflite_shapes import Cost, TfliteStep, TfliteTensor, UnsoundError
from kedge_runtime.modelfile.encodings import Table
from kedge_runtime.modelfile.tflite_schema import OPERATORS

MAX_WORK = 200 << 30  # multiplications of one run: three times the largest network of the zoo
MAX_DEPTH = 8  # of subgraphs that call others
OPTIONS_TYPE = 3  # Operator
_KNOWN = frozenset(OPERATORS)


def check(content: bytes) -> Cost:
    """Return the cost of a run.

    Raises UnsoundError; ValueError, IndexError, KeyError, struct.error for no such file.
    """
    walk = _Walk(read_model(memoryview(content)))
    walk.graph(0, 1, 0)
    return Cost(walk.done, tuple(sorted(walk.unknown)))


class _Walk:
    """Walks through the operators in execution order; `done`: the work so far."""

    def __init__(self, model: TfliteModel) -> None:
        self.model, self.done = model, 0
        self.unknown: set[str] = set()

    def graph(self, place: int, times: int, depth: int) -> None:
        """Check a subgraph that runs `times` times, and the subgraphs that it calls."""
        if depth > MAX_DEPTH:
            raise UnsoundError("its subgraphs call each other without end")
        graph = self.model.graphs[place]
        ready, lasts = set(graph.inputs), _lasts(graph)
        alive = sum(graph.tensors[i].bytes for i in ready)
        for number, table in enumerate(graph.operators):
            step, touched = self._step(graph, table, ready)
            alive += sum(tensor.bytes for tensor in step.outputs)
            self._pay(step, alive, times)
            self._call(step, times, depth)
            alive -= sum(
                graph.tensors[i].bytes
                for i in touched
                if lasts.get(i) == number and graph.tensors[i].data is None
            )
        if any(i not in ready and not _there(graph.tensors[i]) for i in graph.outputs):
            raise UnsoundError("an output is never computed")

    def _step(self, graph: Subgraph, table: Table, ready: set[int]) -> tuple[TfliteStep, set[int]]:
        inputs = table.numbers(tflite.OPERATOR_INPUTS, "i")
        outputs = table.numbers(tflite.OPERATOR_OUTPUTS, "i")
        kind, version = self.model.codes[table.number(tflite.OPCODE, "I")]
        tensors = graph.tensors
        for i in inputs:
            if not -1 <= i < len(tensors):
                raise UnsoundError(f"{kind} reads tensor {i} of {len(tensors)}")
            if i >= 0 and i not in ready and not _there(tensors[i]):
                raise UnsoundError(f"{kind} reads a tensor that isn't computed before it")
        for i in outputs:
            if not 0 <= i < len(tensors) or i in ready or _there(tensors[i]):
                raise UnsoundError(f"{kind} writes tensor {i} of {len(tensors)}, which isn't free")
            ready.add(i)
        step = TfliteStep(
            kind,
            [tensors[i] if i >= 0 else None for i in inputs],
            [tensors[i] for i in outputs],
            table.table(tflite.BUILTIN_OPTIONS),
        )
        union = table.number(OPTIONS_TYPE, "B")
        if kind in FLOWS:
            if union != FLOW_OPTIONS[kind] or version != 1:
                raise UnsoundError(f"{kind} has options of type {union} and version {version}")
        elif kind not in RULES:
            # LiteRT itself refuses operators that it doesn't know, such as the Edge TPU's.
            self.unknown.update({kind} & _KNOWN)
        else:
            try:
                check_step(step, version, union)
            except UnsoundError as error:
                raise UnsoundError(f"{kind}: {error}") from None
        return step, {i for i in (*inputs, *outputs) if i >= 0}

    def _pay(self, step: TfliteStep, alive: int, times: int) -> None:
        if alive + scratch(step) > MAX_MEMORY:
            raise UnsoundError(f"its activations take more than {MAX_MEMORY >> 20} MB")
        self.done += times * work(step)
        if self.done > MAX_WORK:
            raise UnsoundError(f"a run takes more than {MAX_WORK >> 30} G multiplications")

    def _call(self, step: TfliteStep, times: int, depth: int) -> None:
        if step.kind in FLOWS:
            for call in FLOWS[step.kind](step, self.model):
                self.graph(call.place, times * call.times, depth + 1)


def _there(tensor: TfliteTensor) -> bool:
    """Return whether a tensor needs no operator to compute it."""
    return tensor.data is not None or tensor.variable or tensor.shape == (0,)


def _lasts(graph: Subgraph) -> dict[int, int]:
    """Return the last operator that uses each tensor, outputs of the graph excepted."""
    found: dict[int, int] = {}
    for number, table in enumerate(graph.operators):
        for i in (
            *table.numbers(tflite.OPERATOR_INPUTS, "i"),
            *table.numbers(tflite.OPERATOR_OUTPUTS, "i"),
        ):
            found[i] = number
    for i in graph.outputs:
        found.pop(i, None)
    return found


MAX_ROUNDS = 4096  # of a loop: a recurrent network takes one a row


class Call(NamedTuple):
    """A subgraph that an operator runs, and how often at most."""

    place: int
    times: int = 1


def branches(step: TfliteStep, model: TfliteModel) -> list[Call]:
    """Check IF: its condition, and the inputs and outputs of both subgraphs."""
    then, other = (_called(model, step.number(field)) for field in (0, 1))
    for graph in (then, other):
        _fit(step.inputs[1:], [graph.tensors[i] for i in graph.inputs])
        _fit(step.outputs, [graph.tensors[i] for i in graph.outputs])
    _condition(step.inputs[0] if step.inputs else None)
    return [Call(step.number(0)), Call(step.number(1))]


def loop(step: TfliteStep, model: TfliteModel) -> list[Call]:
    """Check WHILE: it runs while a counter is below a constant."""
    condition, body = (_called(model, step.number(field)) for field in (0, 1))
    for graph in (condition, body):
        _fit(step.inputs, [graph.tensors[i] for i in graph.inputs])
    _fit(step.outputs, [body.tensors[i] for i in body.outputs])
    _fit(step.inputs, step.outputs)
    if len(condition.outputs) != 1:
        raise UnsoundError("its condition is no truth value")
    _condition(condition.tensors[condition.outputs[0]])
    times = _rounds(step, condition, body, model)
    return [Call(step.number(0), times + 1), Call(step.number(1), times)]


def _called(model: TfliteModel, place: int) -> Subgraph:
    if not 0 < place < len(model.graphs):
        raise UnsoundError(f"it calls subgraph {place} of {len(model.graphs)}")
    return model.graphs[place]


def _fit(given: list[TfliteTensor | None] | list[TfliteTensor], wanted: list[TfliteTensor]) -> None:
    found = [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in given]
    if found != [(tensor.shape, tensor.dtype) for tensor in wanted]:
        raise UnsoundError("its subgraphs take or give other tensors")
    if any(tensor is not None and tensor.variable for tensor in given):
        raise UnsoundError("it takes a variable")


def _condition(tensor: TfliteTensor | None) -> None:
    if tensor is None or tensor.dtype != "bool" or tensor.elements != 1:
        raise UnsoundError("its condition is no truth value")


def _rounds(step: TfliteStep, condition: Subgraph, body: Subgraph, model: TfliteModel) -> int:
    """Return the loop's bound: the condition is LESS of a counter, alone or in a LOGICAL_AND."""
    made = {out: each for each in _calls(condition, model) for out in each[2]}
    pending, bounds = [condition.outputs[0]], []
    while pending and len(made) < 1000:
        kind, inputs, _ = made.pop(pending.pop(), ("", (), ()))
        if kind == "LOGICAL_AND":
            pending += inputs
        elif kind == "LESS" and len(inputs) == 2:
            bounds.append(_bound(step, condition, body, model, inputs))
    found = [bound for bound in bounds if bound is not None]
    if not found or min(found) > MAX_ROUNDS:
        raise UnsoundError("its loop has no bound that the file states")
    return min(found)


def _bound(
    step: TfliteStep,
    condition: Subgraph,
    body: Subgraph,
    model: TfliteModel,
    inputs: tuple[int, ...],
) -> int | None:
    """Return how often `counter < limit` can be true, None where the file doesn't state it."""
    if inputs[0] not in condition.inputs:
        return None
    place = condition.inputs.index(inputs[0])
    counter = step.inputs[place]
    begin = None if counter is None else counter.integers()
    limit = condition.tensors[inputs[1]].integers()
    if limit is None and inputs[1] in condition.inputs:
        at = condition.inputs.index(inputs[1])
        tensor = step.inputs[at]
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


def _calls(
    graph: Subgraph, model: TfliteModel
) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return [
        (
            model.codes[table.number(tflite.OPCODE, "I")][0],
            table.numbers(tflite.OPERATOR_INPUTS, "i"),
            table.numbers(tflite.OPERATOR_OUTPUTS, "i"),
        )
        for table in graph.operators
    ]


FLOWS: dict[str, Callable[[TfliteStep, TfliteModel], list[Call]]] = {"IF": branches, "WHILE": loop}
FLOW_OPTIONS = {"IF": 92, "WHILE": 93}
