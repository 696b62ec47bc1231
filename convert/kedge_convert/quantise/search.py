"""The cheapest artefact within an accuracy budget.

The ladder: int8, stock or prepared; then more and more activations float, those first that lose
most for their size; float16 at the end. Every rung is prepared anew, so that its weights make good
what the rung's activations lose and no more. Bisection finds the lowest that holds. All is decided
on calibration pictures; what is reported is measured on others.
"""

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kedge_convert import prepare
from kedge_convert.photos import tensors
from kedge_convert.prepare import Graph, Grids
from kedge_convert.progress import Progress
from kedge_convert.quantise import candidates, mixed
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
from kedge_convert.quantise.static import STATIC
from kedge_convert.quantise.static.ranges import choose
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import quiet
from kedge_convert.way import Way
from kedge_runtime.content import ModelContent
from kedge_runtime.engines import open_engine
from kedge_runtime.head import Floats
from kedge_runtime.truth import read_truth

JURY = 16  # pictures that tell which activation costs how much
ROUNDS = 30  # timed runs of each of two models


@dataclass(frozen=True)
class Rung:
    """A preparation with the `parts` that stay float."""

    parts: list[mixed.Part]
    graph: Graph
    source: Source


@dataclass
class Search:
    """What is known to all formats: the budget, the float model's margins, the rungs so far."""

    found: Sources
    budget: Budget
    margins: Margins
    parts: list[mixed.Part]
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
        parts = mixed.parts(found.levelled, _pictures(source, found), tick)
    return Search(found, budget, known, parts)


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
    places = mixed.places(rung.graph, static, floats, picture)
    ranges = choose(plain.way.ranges, seen)
    around = places.around(part.tensor for part in rung.parts)
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
        rounding = prepare.Rounding(found.making.seed, kept, grids)
        name = f"prepare with {count} float"
        with progress.stage(name, len(levelled.nodes)) as tick, quiet():
            pictures = candidates.fitting(source, found.photos)
            graph = prepare.round_weights(levelled, pictures, rounding, tick)
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
