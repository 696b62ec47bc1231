"""Find the cheapest artefact within an accuracy budget: int8, mixed, or float16."""

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export.exported import Way
from kedge_convert.images import Tick, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor, Node, passing, quantised, rest, simulate
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise import candidates
from kedge_convert.quantise.budget import (
    Budget,
    Margins,
    forecast,
    label_margins,
    label_spread,
    margins,
    spread,
)
from kedge_convert.quantise.candidates import Candidate, Sources
from kedge_convert.quantise.ranges import Static, StaticOperator, choose
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.output import quiet

SAME = 1e-3  # of a tensor's peak: two engines' float sums differ by far less


@dataclass(frozen=True)
class NetworkPart:
    """An activation that can stay float: what int8 costs it, and what float would.

    `noise`: mean squared error of the logits; `layers`: Keras names of who writes and reads it, the
    writer first; `size`: its values and those layers' weights, each of which grows by three bytes.
    """

    tensor: GraphTensor
    noise: float
    layers: tuple[str, ...]
    size: int


def parts(graph: Graph, pictures: Floats, tick: Tick = lambda: None) -> list[NetworkPart]:
    """Return the activations of a graph, those first whose noise is largest for their size.

    `pictures`: float32 [n, h, w, 3]; 16 tell the order well enough. `tick`: called per node.
    """
    wanted = simulate(graph, pictures, integer=False)
    found = []
    for i, (node, values) in enumerate(passing(graph, pictures)):
        own = values[node.output]
        spoilt = {**values, node.output: quantised(node, own.copy())}
        answers = rest(graph, spoilt, i + 1)
        noise = float(np.square(answers - wanted, dtype=np.float64).mean())
        found.append(_part(graph, node, noise, own[0].size))
        tick()
    noisy = [part for part in found if part.noise > 0]
    return sorted(noisy, key=lambda part: part.noise / part.size, reverse=True)


def _part(graph: Graph, node: Node, noise: float, values: int) -> NetworkPart:
    around = [node, *(each for each in graph.nodes if node.output in each.inputs)]
    names = tuple(dict.fromkeys(each.layer.name for each in around))
    weights = sum(each.weights.kernel.size for each in around if each.weights)
    return NetworkPart(node.output, noise, names, values + weights)


@dataclass(frozen=True)
class Places:
    """Where a graph's tensors are in a float file: the names of each, none where it is fused."""

    names: dict[GraphTensor, frozenset[str]]
    operators: list[StaticOperator]

    def around(self, tensors: Iterable[GraphTensor]) -> frozenset[str]:
        """Return the names of the operators that write or read any of the tensors.

        Those that only fused tensors connect to them, such as a ReLU and its convolution, included.
        """
        known = frozenset[str]().union(*self.names.values())
        open_names = frozenset[str]().union(*(self.names.get(each, ()) for each in tensors))
        found: set[str] = set()
        while True:
            touched = [each for each in self.operators if open_names & each.tensors]
            if found.issuperset(each.name for each in touched):
                return frozenset(found)
            found.update(each.name for each in touched)
            open_names |= frozenset[str]().union(*(each.tensors for each in touched)) - known


def places(graph: Graph, static: Static, floats: bytes, picture: Floats) -> Places:
    """Find a graph's tensors in a float file by their values on one picture, [1, h, w, 3]."""
    theirs: dict[str, Sketch] = {}
    static.observe(floats, [picture], lambda name, value: theirs.update({name: _sketch(value)}))
    names = {}
    for node, values in passing(graph, picture):
        own = _sketch(values[node.output])
        names[node.output] = frozenset(name for name, one in theirs.items() if _same(own, one))
    start = _sketch(picture)
    names[graph.input] = frozenset(name for name, one in theirs.items() if _same(start, one))
    return Places(names, static.operators(floats))


# A tensor's values in order of size: the same in every layout.
Sketch = NDArray[np.float32]


def _sketch(value: Floats) -> Sketch:
    return np.sort(value, axis=None)


def _same(one: Sketch, other: Sketch) -> bool:
    if one.size != other.size:
        return False
    return bool(np.abs(one - other).max() <= SAME * max(np.abs(one).max(), 1e-6))


JURY = 16  # pictures that tell which activation costs how much
ROUNDS = 30  # timed runs of each of two models


@dataclass(frozen=True)
class Rung:
    """A preparation with the `parts` that stay float."""

    parts: list[NetworkPart]
    graph: Graph
    source: Source


@dataclass
class Search:
    """What is known to all formats: the budget, the float model's margins, the rungs so far."""

    found: Sources
    budget: Budget
    margins: Margins
    parts: list[NetworkPart]
    rungs: dict[tuple[int, Grids], Rung] = field(default_factory=dict)

    def holds(self, candidate: Candidate) -> bool:
        """Whether a candidate is likely to hold the budget on the check pictures."""
        several = self.found.stock.output.multi_label
        noise = (label_spread if several else spread)(self.found.logits, candidate.answers)
        expected = forecast(self.margins, noise)
        return expected.holds(self.budget, len(self.found.photos.check))


def search(found: Sources, budget: Budget, progress: Progress) -> Search:
    """Measure the float model's margins and what each activation costs."""
    source = found.stock
    with progress.stage("measure margins"):
        known = _margins(found, budget)
    with progress.stage("measure layers", len(found.levelled.nodes)) as tick, quiet():
        costs = parts(found.levelled, _pictures(source, found), tick)
    return Search(found, budget, known, costs)


def _margins(found: Sources, budget: Budget) -> Margins:
    output = found.stock.output
    if output.multi_label:
        return label_margins(found.known, output)
    asked = budget.max_drop is not None
    classes = true_classes(found.photos.calibration, found.stock) if asked else None
    return margins(found.known, classes)


def true_classes(photos: Sequence[Path], source: Source) -> list[int] | None:
    """Return the index of each picture's true output, or None when nothing tells."""
    truth = read_truth(photos, source.labels)
    offset = source.output.label_offset
    return None if truth is None else [truth[photo] + offset for photo in photos]


def _pictures(source: Source, found: Sources) -> Floats:
    return np.concatenate(list(tensors(found.photos.fitting[:JURY], source.input)))


def cheapest(target: Target, one: Search, progress: Progress) -> Candidate:
    """Return the cheapest candidate of a format that holds the budget, or the last resort."""
    plain = candidates.best(target, one.found, progress)
    if one.holds(plain):
        return plain
    last = candidates.exported(Target(target.form, "float16"), one.found, progress, "stock")
    tried: dict[int, Candidate] = {}

    def holds(count: int) -> bool:
        tried[count] = _mixed(target, one, count, plain, progress)
        # What is as large as float16 is no bargain any more: float16 is next.
        return len(tried[count].content) >= len(last.content) or one.holds(tried[count])

    counts = range(1, len(one.parts) + 1)
    at = bisect_left(counts, True, key=holds)
    chosen = tried[counts[at]] if at < len(counts) else last
    if len(chosen.content) >= len(last.content):
        chosen = last
    return replace(chosen, notes=(*chosen.notes, *_costs(target, chosen, plain)))


def _mixed(
    target: Target, one: Search, count: int, plain: Candidate, progress: Progress
) -> Candidate:
    """Make the candidate whose `count` costliest activations stay float."""
    making, photos, static = one.found.making, one.found.photos, STATIC[target.form]
    rung = _rung(one, count, making.grids(target.form), progress)
    floats = static.floats(rung.source)
    seen = candidates.observed(target, rung.source, floats, photos, progress)
    picture = next(tensors(photos.fitting, rung.source.input))
    found = places(rung.graph, static, floats, picture)
    ranges = choose(plain.way.ranges, seen)
    around = found.around(part.tensor for part in rung.parts)
    content = static.quantise(floats, ranges, around, making.scheme)
    layers = dict.fromkeys(name for part in rung.parts for name in part.layers)
    way = Way("mixed", "prepared", plain.way.ranges, tuple(layers))
    return candidates.judged(target, one.found, content, way)


def _rung(one: Search, count: int, grids: Grids, progress: Progress) -> Rung:
    """Prepare the weights for a rung; once for all formats with the same grids."""
    if (count, grids) not in one.rungs:
        found, parts = one.found, one.parts[:count]
        source, levelled = found.stock, found.levelled
        kept = frozenset(part.tensor for part in parts)
        rounding = preparation.Rounding(found.making.seed, kept, grids)
        name = f"prepare with {count} float"
        with progress.stage(name, len(levelled.nodes)) as tick, quiet():
            pictures = candidates.fitting(source, found.photos)
            graph = preparation.round_weights(levelled, pictures, rounding, tick)
        one.rungs[count, grids] = Rung(parts, graph, replace(source, model=graph.build()))
    return one.rungs[count, grids]


def _costs(target: Target, chosen: Candidate, plain: Candidate) -> list[str]:
    """Say what a candidate costs in comparison with plain int8."""
    size = len(chosen.content) / len(plain.content)
    way = chosen.way
    layers = f" ({', '.join(way.kept)} stay float)" if way.kept else ""
    ratio = _latency(target.form, chosen.content, plain.content)
    return [f"{way.precision}{layers}: {size:.2f} of plain int8's size, {ratio:.2f} of its latency"]


def _latency(form: str, one: bytes, other: bytes) -> float:
    """Return the ratio of median seconds per run, in turns, so that a disturbance meets both."""
    with quiet():
        runs = [_runner(ModelContent(Path("candidate"), form, each)) for each in (one, other)]
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for run, taken in zip(runs, times, strict=True):
                start = time.perf_counter()
                run()
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def _runner(content: ModelContent) -> Callable[[], object]:
    engine = open_engine(content)
    blank = np.zeros(engine.input_shape, engine.input.dtype)
    return lambda: engine.run(blank)
