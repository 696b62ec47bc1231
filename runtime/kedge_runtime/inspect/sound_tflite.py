"""Check what LiteRT believes of a .tflite file: places, operands, types, shapes, loops, memory."""

from kedge_runtime.flatbuffer import Table
from kedge_runtime.inspect import tflite_fields as tflite
from kedge_runtime.inspect.tflite_flow import FLOW_OPTIONS, FLOWS
from kedge_runtime.inspect.tflite_names import OPERATORS
from kedge_runtime.inspect.tflite_rules import RULES
from kedge_runtime.inspect.tflite_shapes import Cost, Step, Tensor, UnsoundError
from kedge_runtime.inspect.tflite_steps import check_step, scratch, work
from kedge_runtime.inspect.tflite_tensors import MAX_MEMORY, Graph, Model, read_model

MAX_WORK = 200 << 30  # multiplications of one run: three times the largest network of the zoo
MAX_DEPTH = 8  # of subgraphs that call others
OPTIONS_TYPE = 3  # Operator
_KNOWN = frozenset(OPERATORS)


def check(content: bytes) -> Cost:
    """Return what a run takes.

    Raises UnsoundError; ValueError, IndexError, KeyError, struct.error for no such file.
    """
    walk = _Walk(read_model(memoryview(content)))
    walk.graph(0, 1, 0)
    return Cost(walk.done, tuple(sorted(walk.unknown)))


class _Walk:
    """Through the operators in the order of their running; `done` is the work so far."""

    def __init__(self, model: Model) -> None:
        self.model, self.done = model, 0
        self.unknown: set[str] = set()

    def graph(self, place: int, times: int, depth: int) -> None:
        """Check a subgraph, run so often, and those that it calls."""
        if depth > MAX_DEPTH:
            raise UnsoundError("its subgraphs call each other without end")
        graph = self.model.graphs[place]
        ready, lasts = set(graph.inputs), _lasts(graph)
        alive = sum(graph.tensors[i].bytes for i in ready)
        for number, table in enumerate(graph.operators):
            step, touched = self._step(graph, table, ready)
            alive += sum(tensor.bytes for tensor in step.gives)
            self._pay(step, alive, times)
            self._call(step, times, depth)
            alive -= sum(
                graph.tensors[i].bytes
                for i in touched
                if lasts.get(i) == number and graph.tensors[i].data is None
            )
        if any(i not in ready and not _there(graph.tensors[i]) for i in graph.outputs):
            raise UnsoundError("an output is never computed")

    def _step(self, graph: Graph, table: Table, ready: set[int]) -> tuple[Step, set[int]]:
        takes, gives = table.numbers(tflite.TAKES, "i"), table.numbers(tflite.GIVES, "i")
        kind, version = self.model.codes[table.number(tflite.OPCODE, "I")]
        tensors = graph.tensors
        for i in takes:
            if not -1 <= i < len(tensors):
                raise UnsoundError(f"{kind} reads tensor {i} of {len(tensors)}")
            if i >= 0 and i not in ready and not _there(tensors[i]):
                raise UnsoundError(f"{kind} reads a tensor that isn't computed before it")
        for i in gives:
            if not 0 <= i < len(tensors) or i in ready or _there(tensors[i]):
                raise UnsoundError(f"{kind} writes tensor {i} of {len(tensors)}, which isn't free")
            ready.add(i)
        step = Step(
            kind,
            [tensors[i] if i >= 0 else None for i in takes],
            [tensors[i] for i in gives],
            table.table(tflite.BUILTIN_OPTIONS),
        )
        union = table.number(OPTIONS_TYPE, "B")
        if kind in FLOWS:
            if union != FLOW_OPTIONS[kind] or version != 1:
                raise UnsoundError(f"{kind} has options of type {union} and version {version}")
        elif kind not in RULES:
            # What LiteRT doesn't know either it refuses by itself, as the Edge TPU's.
            self.unknown.update({kind} & _KNOWN)
        else:
            try:
                check_step(step, version, union)
            except UnsoundError as error:
                raise UnsoundError(f"{kind}: {error}") from None
        return step, {i for i in (*takes, *gives) if i >= 0}

    def _pay(self, step: Step, alive: int, times: int) -> None:
        if alive + scratch(step) > MAX_MEMORY:
            raise UnsoundError(f"its activations take more than {MAX_MEMORY >> 20} MB")
        self.done += times * work(step)
        if self.done > MAX_WORK:
            raise UnsoundError(f"a run takes more than {MAX_WORK >> 30} G multiplications")

    def _call(self, step: Step, times: int, depth: int) -> None:
        if step.kind in FLOWS:
            for call in FLOWS[step.kind](step, self.model):
                self.graph(call.place, times * call.times, depth + 1)


def _there(tensor: Tensor) -> bool:
    """Whether a tensor needs nobody to compute it."""
    return tensor.data is not None or tensor.variable or tensor.shape == (0,)


def _lasts(graph: Graph) -> dict[int, int]:
    """Return which operator is the last that touches a tensor; outputs live on."""
    found: dict[int, int] = {}
    for number, table in enumerate(graph.operators):
        for i in (*table.numbers(tflite.TAKES, "i"), *table.numbers(tflite.GIVES, "i")):
            found[i] = number
    for i in graph.outputs:
        found.pop(i, None)
    return found
