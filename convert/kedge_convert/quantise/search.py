"""Find the cheapest artefact within an accuracy budget: int8, mixed, or float16."""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kedge_convert.export.exported import Recipe
from kedge_convert.images import Tick, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor, Node
from kedge_convert.prepare.preparation import Grids
from kedge_convert.prepare.running import passing, quantised, rest, simulate
from kedge_convert.quantise import candidates, observing
from kedge_convert.quantise.budget import (
    Budget,
    Margins,
    forecast,
    label_margins,
    margins,
)
from kedge_convert.quantise.candidates import CandidateModels
from kedge_convert.quantise.comparing import Candidate
from kedge_convert.quantise.crossfit import CrossFit, unfitted_ratio
from kedge_convert.quantise.naming import tensor_names
from kedge_convert.quantise.ranges import choose
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.drift.truth import read_truth
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.output import quiet

LOG = logging.getLogger("kedge")


@dataclass(frozen=True)
class NetworkPart:
    """An activation that can stay float, with the cost of int8 and of float.

    `noise`: mean squared error of the logits by int8; `layers`: Keras names of its writer and its
    readers; `size`: its values and those layers' weights, each of which grows by three bytes.
    """

    tensor: GraphTensor
    noise: float
    layers: tuple[str, ...]
    size: int


def parts(graph: Graph, images: Floats, tick: Tick = lambda: None) -> list[NetworkPart]:
    """Return the activations of a graph, those first whose noise is largest for their size.

    `images`: float32 [n, h, w, 3]; 16 are enough for the order. `tick`: called per node.
    """
    reference = simulate(graph, images, integer=False)
    measured = []
    for i, (node, values) in enumerate(passing(graph, images)):
        own = np.asarray(values[node.output])
        spoilt = {**values, node.output: quantised(node, own.copy())}
        answers = rest(graph, spoilt, i + 1)
        noise = float(np.square(answers - reference, dtype=np.float64).mean())
        measured.append(_part(graph, node, noise, own[0].size))
        tick()
    noisy = [part for part in measured if part.noise > 0]
    return sorted(noisy, key=lambda part: part.noise / part.size, reverse=True)


def _part(graph: Graph, node: Node, noise: float, values: int) -> NetworkPart:
    around = [node, *(each for each in graph.nodes if node.output in each.inputs)]
    names = tuple(dict.fromkeys(each.layer.name for each in around))
    weights = sum(each.weights.kernel.size for each in around if each.weights)
    return NetworkPart(node.output, noise, names, values + weights)


MEASURED = 16  # images that tell which activation costs how much
ROUNDS = 30  # timed runs of each of two models


@dataclass(frozen=True)
class Rung:
    """A preparation with the `parts` that stay float."""

    parts: list[NetworkPart]
    graph: Graph
    source: Source


@dataclass
class Search:
    """State shared by all formats: the budget, the float model's margins, the rungs so far."""

    models: CandidateModels
    budget: Budget
    margins: Margins
    crossfit: CrossFit
    parts: list[NetworkPart]
    rungs: dict[tuple[int, Grids], Rung] = field(default_factory=dict)

    def holds(self, target: Target, candidate: Candidate) -> bool:
        """Whether a candidate is likely to hold the budget on the validation images."""
        found = self.crossfit.noise(target, self.models, candidate)
        expected = forecast(self.margins, found)
        return expected.holds(self.budget, len(self.models.images.validation))


def search(models: CandidateModels, budget: Budget, progress: Progress) -> Search:
    """Measure the float model's margins and the cost of each activation."""
    graph, source = models.equalised, models.stock
    with progress.stage("measure margins"):
        preparing = source.logits(tensors(models.images.preparation, source.input))
        reference = _margins(models, budget, np.concatenate([preparing, models.logits]))
    images = candidates.preparation_inputs(source, models.images)
    with progress.stage("fit to halves", 2 * len(graph.nodes)) as tick, quiet():
        rounding = preparation.Rounding(models.options.seed, grids=next(iter(models.prepared)))
        crossfit = CrossFit(preparing, unfitted_ratio(graph, images, rounding, tick))
    with progress.stage("measure layers", len(graph.nodes)) as tick, quiet():
        costs = parts(graph, images[:MEASURED], tick)
    return Search(models, budget, reference, crossfit, costs)


def _margins(models: CandidateModels, budget: Budget, logits: Floats) -> Margins:
    output = models.stock.output
    if output.multi_label:
        return label_margins(logits, output)
    asked = budget.max_drop is not None
    classes = true_classes(models.images.calibration, models.stock) if asked else None
    return margins(logits, classes)


def true_classes(images: Sequence[Path], source: Source) -> list[int] | None:
    """Return the index of each image's true output, or None without ground truth."""
    truth = read_truth(images, source.labels)
    offset = source.output.label_offset
    return None if truth is None else [truth[image] + offset for image in images]


def rungs(
    target: Target, search: Search, plain: Candidate, progress: Progress
) -> Iterator[Candidate]:
    """Yield a format's candidates from the cheapest that is likely to hold the budget to float16.

    `plain`: the best whole int8 model. Each one is made when it is asked for, and says its price.
    """
    plain_holds = search.holds(target, plain)
    if plain_holds:
        yield plain
    last = candidates.exported(
        Target(target.format, "float16"), search.models, progress, method="stock"
    )
    ladder = Ladder(target, search, plain, last, progress)
    count = 1 if plain_holds else ladder.fewest()
    # Twice the layers each time: every miss on the same images costs confidence.
    while (mixed := ladder.mixed(count)) is not None:
        yield _priced(target, mixed, plain)
        count = 2 * count + 1
    yield _priced(target, last, plain)


@dataclass
class Ladder:
    """The mixed candidates between `plain` int8 and `last`, made once each.

    None stands for one that can't be made or is as large as `last`, and for any wider one.
    """

    target: Target
    search: Search
    plain: Candidate
    last: Candidate
    progress: Progress
    made: dict[int, Candidate | None] = field(default_factory=dict)

    def mixed(self, count: int) -> Candidate | None:
        """Return the candidate whose `count` costliest activations stay float."""
        if count > len(self.search.parts):
            return None
        if count not in self.made:
            self.made[count] = self._made(count)
        return self.made[count]

    def _made(self, count: int) -> Candidate | None:
        try:
            mixed = _mixed(self.target, self.search, count, self.plain, self.progress)
        except candidates.FAULTS:
            LOG.info("%s: no mixed candidate", self.target, exc_info=True)
            return None
        return None if len(mixed.content) >= len(self.last.content) else mixed

    def fewest(self) -> int:
        """Return the least count whose candidate is likely to hold, found by bisection."""
        low, high = 0, len(self.search.parts)
        while low < high:
            middle = (low + high) // 2
            mixed = self.mixed(middle + 1)
            if mixed is None or self.search.holds(self.target, mixed):
                high = middle
            else:
                low = middle + 1
        return low + 1


def _mixed(
    target: Target, search: Search, count: int, plain: Candidate, progress: Progress
) -> Candidate:
    """Make the candidate whose `count` costliest activations stay float."""
    options, images = search.models.options, search.models.images
    static = STATIC[target.format]
    rung = _rung(search, count, options.grids(target.format), progress)
    floats = static.floats(rung.source)
    seen = observing.observed(target, rung.source, floats, images, progress)
    image = next(tensors(images.preparation, rung.source.input))
    names = tensor_names(rung.graph, static, floats, image)
    ranges = choose(plain.recipe.ranges, seen)
    around = names.around(part.tensor for part in rung.parts)
    content = static.quantise(floats, ranges, around, options.scheme)
    layers = dict.fromkeys(name for part in rung.parts for name in part.layers)
    recipe = Recipe("mixed", "prepared", plain.recipe.ranges, tuple(layers))
    return candidates.judged(target, search.models, content, recipe)


def _rung(search: Search, count: int, grids: Grids, progress: Progress) -> Rung:
    """Prepare the weights for a rung; once for all formats with the same grids."""
    if (count, grids) not in search.rungs:
        models, parts = search.models, search.parts[:count]
        source, equalised = models.stock, models.equalised
        floats = frozenset(part.tensor for part in parts)
        rounding = preparation.Rounding(models.options.seed, floats, grids)
        name = f"prepare with {count} float"
        with progress.stage(name, len(equalised.nodes)) as tick, quiet():
            inputs = candidates.preparation_inputs(source, models.images)
            graph = preparation.round_weights(equalised, inputs, rounding, tick)
        search.rungs[count, grids] = Rung(parts, graph, replace(source, model=graph.build()))
    return search.rungs[count, grids]


def _priced(target: Target, chosen: Candidate, plain: Candidate) -> Candidate:
    """Return a candidate with the line of its price among its notes."""
    line = price(target.format, chosen.recipe, chosen.content, plain.content)
    return replace(chosen, notes=(*chosen.notes, line))


def price(format: str, recipe: Recipe, content: bytes, plain: bytes) -> str:
    """Return the line that compares a file's size and latency with plain int8's."""
    size, ratio = len(content) / len(plain), _latency(format, content, plain)
    layers = f" ({', '.join(recipe.float_layers)} stay float)" if recipe.float_layers else ""
    return (
        f"{recipe.precision}{layers}: {size:.2f} of plain int8's size, {ratio:.2f} of its latency"
    )


def _latency(format: str, one: bytes, other: bytes) -> float:
    """Return the ratio of median seconds per run, in turns, so that a disturbance meets both."""
    with quiet():
        runs = [_runner(ModelContent(Path("candidate"), format, each)) for each in (one, other)]
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
