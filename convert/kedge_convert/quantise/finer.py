"""Give the noisiest activations finer steps, where that brings int8 closer to the float model.

LeakyReLUs become pairs of ReLUs (`prepare/pairs.py`); channels are copied (`prepare/copies.py`).
Such a file takes more time and a few more bytes. It is used only if it wins, on the selection
images and those that confirm.
"""

import logging
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from kedge_convert.images import Tick, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.copies import copied
from kedge_convert.prepare.copyable import Copies, CopyPlan, copy_groups
from kedge_convert.prepare.copyable import plans as copy_plans
from kedge_convert.prepare.equalise import Shapes, measure
from kedge_convert.prepare.graph import Graph, GraphTensor
from kedge_convert.prepare.pairs import PAIR, PairGroup, pair_groups, pair_plan, paired
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise import candidates, search
from kedge_convert.quantise.candidates import CandidateModels
from kedge_convert.quantise.comparing import Candidate
from kedge_convert.quantise.effort import Effort
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.output import quiet

LOG = logging.getLogger("kedge")


@dataclass(frozen=True)
class FinePlan:
    """LeakyReLUs to write as pairs, and copies of tensors' channels behind them.

    `ratio`: the network's work to that without.
    """

    pairs: tuple[PairGroup, ...]
    copies: Copies
    ratio: float

    def applied(self, graph: Graph) -> Graph:
        """Return the same function with the pairs and copies."""
        return copied(paired(graph, self.pairs), self.copies)


@dataclass
class Finer:
    """State shared by all formats: the plan, if there is any, and the models that follow it."""

    models: CandidateModels
    plan: FinePlan | None
    made: dict[Grids, CandidateModels] = field(default_factory=dict)


def finer(models: CandidateModels, progress: Progress) -> Finer:
    """Plan the pairs and copies that take off most noise within the effort's limits."""
    graph, effort = models.equalised, models.options.effort
    if not effort.refines or not (copy_groups(graph) or pair_groups(graph)):
        return Finer(models, None)
    paths = models.images.preparation[: search.MEASURED]
    images = np.concatenate(list(tensors(paths, models.stock.input)))
    with progress.stage("measure activations", len(graph.nodes)) as tick, quiet():
        plan = fine_plan(graph, images, effort, tick)
    return Finer(models, plan if plan.ratio != 1 else None)


def fine_plan(graph: Graph, images: Floats, effort: Effort, tick: Tick = lambda: None) -> FinePlan:
    """Plan within an effort's limits. A pair takes off more noise than copies: pairs first.

    `images`: float32 [n, h, w, 3], on which the noise is measured.
    """
    shapes, noises = _measured(graph, images, tick)
    pairs = pair_plan(graph, shapes, noises, effort.pairs)
    if pairs.groups:
        graph = paired(graph, pairs.groups)
        shapes, noises = _measured(graph, images)
    largest = deque(copy_plans(graph, shapes, noises, effort.copies), maxlen=1)
    copies = largest[0] if largest else CopyPlan({}, 1.0)
    return FinePlan(pairs.groups, copies.copies, pairs.ratio * copies.ratio)


def _measured(
    graph: Graph, images: Floats, tick: Tick = lambda: None
) -> tuple[Shapes, dict[GraphTensor, float]]:
    """Return every tensor's shape, and the noise of each activation."""
    noises = {part.tensor: part.noise for part in search.parts(graph, images, tick)}
    return measure(graph, images[:1])[1], noises


def closest(target: Target, state: Finer, plain: Candidate, progress: Progress) -> Candidate:
    """Return the best candidate with finer steps if it is closer than `plain`, else `plain`."""
    plan = state.plan
    if plan is None or target.precision != "int8":
        return plain
    try:
        models = _models(state, plan, target, progress)
        made = candidates.ranged(target, models, progress)
    except candidates.FAULTS:
        LOG.info("%s: no candidate with finer steps", target, exc_info=True)
        return plain
    fine = _priced(made, copied_layers(state.models.equalised, plan), plan, plain)
    own = candidates.all_distances(target, models, made)
    others = candidates.all_distances(target, state.models, plain)
    # No margin as between methods for ranges: whoever asks for finer steps expects them to win.
    return fine if own.mean() < others.mean() else plain


def copied_layers(graph: Graph, plan: FinePlan) -> tuple[str, ...]:
    """Return the layers whose outputs are copied, as `conv1 x2`, or pairs, as `conv1 +-`."""
    before = {node.inputs[0] for group in plan.pairs for node in group.leaky}
    pairs = [f"{node.layer.name} {PAIR}" for node in graph.nodes if node.output in before]
    copies = [
        f"{node.layer.name} x{plan.copies[node.output]}"
        for node in paired(graph, plan.pairs).nodes
        if node.weights is not None and plan.copies.get(node.output, 1) > 1
    ]
    return (*pairs, *copies)


def _models(state: Finer, plan: FinePlan, target: Target, progress: Progress) -> CandidateModels:
    """Prepare the weights of a plan, once for all formats with the same grids."""
    models, grids = state.models, state.models.options.grids(target.format)
    if grids not in state.made:
        graph = plan.applied(models.equalised)
        inputs = candidates.preparation_inputs(models.stock, models.images)
        count = _images(models.equalised, graph, len(inputs))
        rounding = preparation.Rounding(models.options.seed, grids=grids, images=count)
        with progress.stage("prepare copied channels", len(graph.nodes)) as tick, quiet():
            rounded = preparation.round_weights(graph, inputs, rounding, tick)
        source = replace(models.prepared[grids], model=rounded.build())
        state.made[grids] = replace(models, prepared={grids: source}, methods={})
    return state.made[grids]


def _images(plain: Graph, wider: Graph, count: int) -> int:
    """Return how many of `count` images to use: as many as without copies, in twice the memory."""
    own, others = (preparation.affordable(each, count) for each in (wider, plain))
    return min(others, 2 * own)


def _priced(
    made: Candidate, layers: tuple[str, ...], plan: FinePlan, plain: Candidate
) -> Candidate:
    """Return a candidate with its copied layers, and the line of its price among its notes."""
    size = len(made.content) / len(plain.content)
    kinds = [f"{PAIR} pairs"] * bool(plan.pairs) + ["copied channels"] * bool(plan.copies)
    line = (
        f"{' and '.join(kinds)} ({', '.join(layers)}): {size:.2f} of plain int8's size, about "
        f"{plan.ratio:.2f} of its work"
    )
    recipe = replace(made.recipe, copied_layers=layers)
    return replace(made, recipe=recipe, notes=(*made.notes, line))
