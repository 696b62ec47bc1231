"""A group's artefacts against the float original, in a process of its own: it loads TensorFlow."""

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kedge_convert.build.matrix import Cell
from kedge_convert.drift import attribute, localised, record
from kedge_runtime.drift.comparison import Comparison, Request, compare, prepare
from kedge_runtime.drift.original import Original
from kedge_runtime.drift.report import Drift
from kedge_runtime.drift.summary import Limits
from kedge_runtime.engines import EngineOptions
from kedge_runtime.errors import LostError
from kedge_runtime.pool.processes import ended_by_errors, process

Study = dict[str, Any]


@dataclass(frozen=True)
class Orders:
    """Artefacts of one model, its folder of pictures, and where its answers are or shall be."""

    cell: Cell
    artefacts: tuple[Path, ...]
    reference: Path


def measure_apart(orders: Orders) -> list[Study]:
    """Return each artefact's drift and layers, as plain data.

    Raises UsageError for pictures, truth or a model that can't be used, LostError when the process
    dies: it isn't done again, being as large as before.
    """
    with process() as alone, ended_by_errors():
        try:
            return alone.submit(measure, orders).result()
        except BrokenProcessPool:
            raise LostError("the process that measured its drift died") from None


def measure(orders: Orders) -> list[Study]:
    """Do the same in this process."""
    model = orders.cell.model
    images, options = Path(str(model.images)), EngineOptions()
    comparison = prepare(Request(orders.artefacts, images, model.truth, Limits(), options))
    original = Original(model.source, model.weights, comparison.artefacts[0])
    if not orders.reference.exists():
        record(original, comparison.pictures, orders.reference)
    drifts = compare(comparison, orders.reference)
    return _traced(orders, original, comparison, drifts)


def _traced(
    orders: Orders, original: Original, comparison: Comparison, drifts: Sequence[Drift]
) -> list[Study]:
    """Add what each drift comes from, as far as it is asked for."""
    model, artefacts = orders.cell.model, comparison.artefacts
    if model.attribute:
        sample = comparison.sample(model.attribute)
        causes = attribute(original, artefacts, sample, comparison.request.options)
        drifts = [replace(d, attribution=c) for d, c in zip(drifts, causes, strict=True)]
    layers: list[Study | None] = [None] * len(drifts)
    if model.by_layer:
        sample = comparison.sample(model.by_layer)
        layers = [asdict(found) for found in localised(original, artefacts, sample)]
    pairs = zip(drifts, layers, strict=True)
    return [{"drift": asdict(drift), "by_layer": each} for drift, each in pairs]
