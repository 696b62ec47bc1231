"""Copy the channels of the noisiest activations, where that brings int8 closer to the float model.

A file of copied channels has the same kinds of operators; it takes more time and a few more bytes
(`prepare/copies.py`). It is used only if it wins on the selection images.
"""

import logging
from dataclasses import dataclass, field, replace

import numpy as np

from kedge_convert.images import tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.copies import copied
from kedge_convert.prepare.copyable import CopyPlan, copy_groups, plans
from kedge_convert.prepare.equalise import measure
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise import candidates, search
from kedge_convert.quantise.candidates import Candidate, CandidateModels
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.output import quiet

LOG = logging.getLogger("kedge")


@dataclass
class Finer:
    """State shared by all formats: what is copied, and the models with copies so far."""

    models: CandidateModels
    plans: list[CopyPlan]
    made: dict[tuple[float, Grids], CandidateModels] = field(default_factory=dict)


def finer(models: CandidateModels, progress: Progress) -> Finer:
    """Plan the copies: the most that take off noise for each limit of the effort's."""
    graph, limits = models.equalised, models.options.effort.work
    if not limits or not copy_groups(graph):
        return Finer(models, [])
    paths = models.images.preparation[: search.MEASURED]
    images = np.concatenate(list(tensors(paths, models.stock.input)))
    with progress.stage("measure activations", len(graph.nodes)) as tick, quiet():
        noises = {part.tensor: part.noise for part in search.parts(graph, images, tick)}
        shapes = measure(graph, images[:1])[1]
        largest = [list(plans(graph, shapes, noises, limit))[-1:] for limit in limits]
    return Finer(models, [plan for each in largest for plan in each])


def closest(target: Target, state: Finer, plain: Candidate, progress: Progress) -> Candidate:
    """Return the best candidate with copied channels if it is closer than `plain`, else `plain`."""
    if target.precision != "int8" or plain.recipe.method != "prepared":
        return plain
    found = [plain]
    for plan in state.plans:
        try:
            models = _models(state, plan, target, progress)
            made = candidates.ranged(target, models, progress)
        except candidates.FAULTS:
            LOG.info("%s: no candidate with copied channels", target, exc_info=True)
            continue
        found.append(_priced(made, copied_layers(state.models.equalised, plan), plan, plain))
    return candidates.closest_ranges(found)


def copied_layers(graph: Graph, plan: CopyPlan) -> tuple[str, ...]:
    """Return the layers whose outputs are copied, as `conv1 x2`."""
    return tuple(
        f"{node.layer.name} x{plan.copies[node.output]}"
        for node in graph.nodes
        if node.weights is not None and plan.copies.get(node.output, 1) > 1
    )


def _models(state: Finer, plan: CopyPlan, target: Target, progress: Progress) -> CandidateModels:
    """Prepare the weights of a plan, once for all formats with the same grids."""
    models, grids = state.models, state.models.options.grids(target.format)
    if (plan.ratio, grids) not in state.made:
        graph = copied(models.equalised, plan.copies)
        inputs = candidates.preparation_inputs(models.stock, models.images)
        count = _images(models.equalised, graph, len(inputs))
        rounding = preparation.Rounding(models.options.seed, grids=grids, images=count)
        with progress.stage("prepare copied channels", len(graph.nodes)) as tick, quiet():
            rounded = preparation.round_weights(graph, inputs, rounding, tick)
        source = replace(models.prepared[grids], model=rounded.build())
        state.made[plan.ratio, grids] = replace(models, prepared={grids: source})
    return state.made[plan.ratio, grids]


def _images(plain: Graph, wider: Graph, count: int) -> int:
    """Return how many of `count` images to use: as many as without copies, in twice the memory."""
    own, others = (preparation.affordable(each, count) for each in (wider, plain))
    return min(others, 2 * own)


def _priced(
    made: Candidate, layers: tuple[str, ...], plan: CopyPlan, plain: Candidate
) -> Candidate:
    """Return a candidate with its copied layers, and the line of its price among its notes."""
    size = len(made.content) / len(plain.content)
    line = (
        f"copied channels ({', '.join(layers)}): {size:.2f} of plain int8's size, about "
        f"{plan.ratio:.2f} of its work"
    )
    recipe = replace(made.recipe, copied_layers=layers)
    return replace(made, recipe=recipe, notes=(*made.notes, line))
