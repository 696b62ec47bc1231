"""Make a group's missing results and put them into the cache."""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kedge_convert import pipeline
from kedge_convert.drift.attribution import attribute
from kedge_convert.drift.recording import localised, record
from kedge_convert.job import Checked, Job, Outcome
from kedge_convert.matrix import keys
from kedge_convert.matrix.cache import Cache, Entry
from kedge_convert.matrix.cells import Cell, CellGroup
from kedge_convert.matrix.stored import ARTEFACT, artefact, study
from kedge_convert.targets import Target
from kedge_convert.worker import supervisor
from kedge_convert.worker.process import ProcessLimits
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.content import DIGEST_BYTES
from kedge_runtime.drift.comparison import Comparison, DriftRequest, compare, prepare
from kedge_runtime.drift.recording import Original
from kedge_runtime.drift.reference import SUFFIX
from kedge_runtime.drift.report import Drift
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import KedgeError, LostError
from kedge_runtime.files import write_whole
from kedge_runtime.output import say
from kedge_runtime.pool.processes import ended_by_errors, process

Study = dict[str, Any]


@dataclass(frozen=True)
class MeasureRequest:
    """Artefacts of one model, its folder of pictures, and where its answers are or shall be."""

    cell: Cell
    artefacts: tuple[Path, ...]
    reference: Path


def measure_apart(orders: MeasureRequest) -> list[Study]:
    """Return each artefact's drift and layers, as plain data.

    Raises UsageError for pictures, truth or a model that can't be used, LostError when the process
    dies: it isn't done again, being as large as before.
    """
    with process() as alone, ended_by_errors():
        try:
            return alone.submit(measure, orders).result()
        except BrokenProcessPool:
            raise LostError("the process that measured its drift died") from None


def measure(orders: MeasureRequest) -> list[Study]:
    """Do the same in this process."""
    model = orders.cell.model
    images, options = Path(str(model.images)), EngineOptions()
    comparison = prepare(DriftRequest(orders.artefacts, images, model.truth, GateLimits(), options))
    original = Original(model.source, model.weights, comparison.artefacts[0])
    if not orders.reference.exists():
        record(original, comparison.pictures, orders.reference)
    drifts = compare(comparison, orders.reference)
    return _traced(orders, original, comparison, drifts)


def _traced(
    orders: MeasureRequest, original: Original, comparison: Comparison, drifts: Sequence[Drift]
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


REFERENCE = "reference"
CHANGED = "its files changed while it was converted; build again"


@dataclass(frozen=True)
class Place:
    """Where results are kept, within which limits they are made, and where logs go."""

    cache: Cache
    limits: ProcessLimits
    out: Path
    silent: bool = False


@dataclass(frozen=True)
class Failures:
    """Why cells have no artefact, by name, and which were made now rather than found."""

    reasons: dict[str, tuple[str, ...]]
    made: tuple[str, ...] = ()


def is_done(cell: Cell, cache: Cache) -> bool:
    """Whether nothing is left to be made of a cell."""
    made = artefact(cell, cache)
    return made is not None and (not cell.model.images or study(cell, cache, made) is not None)


def make(group: CellGroup, place: Place) -> Failures:
    """Convert and measure what isn't in the cache. Raises KedgeError for pictures of no use."""
    cache = place.cache
    with cache.lock(keys.group_key(group), partial(_say, f"{group.name}: another build makes it")):
        left = [cell for cell in group.cells if artefact(cell, cache) is None]
        reasons = _converted(group, left, place) if left else {}
        found = [(cell, artefact(cell, cache)) for cell in group.cells]
        pairs = [(cell, made) for cell, made in found if made and cell.model.images]
        if todo := [(cell, made) for cell, made in pairs if not study(cell, cache, made)]:
            _measured(todo, cache)
    return Failures(reasons, tuple(cell.name for cell in left))


def _say(line: str) -> None:
    say(line, prefix="")


def _converted(group: CellGroup, cells: list[Cell], place: Place) -> dict[str, tuple[str, ...]]:
    """Convert cells; return what speaks against those that gave no file."""
    with place.cache.workshop() as folder:
        try:
            outcomes = _convert(group, cells, place, folder)
        except KedgeError as error:  # this model can't be read, say; others can
            return {cell.name: (str(error),) for cell in cells}
        # Under the group's name: groups may be made of one source.
        log, written = place.out / f"{group.name}.log", group.job((), folder).log
        if written.exists():
            write_whole(log, written.read_bytes())
    failed = {}
    for cell, outcome in zip(cells, outcomes, strict=True):
        if artefact(cell, place.cache) is None:
            reasons = outcome.verdict.reasons or (CHANGED,)
            failed[cell.name] = tuple(why.replace(str(written), str(log)) for why in reasons)
    return failed


def _convert(group: CellGroup, cells: list[Cell], place: Place, folder: Path) -> list[Outcome]:
    targets = tuple(cell.target for cell in cells)
    work = partial(kept, wanted(cells), place)
    with Progress(silent=place.silent) as progress:
        progress.note(f"{group.name}: {', '.join(map(str, targets))}")
        job, bounds = group.job(targets, folder), place.limits.bounds()
        return supervisor.convert(job, progress, bounds, work, (place.cache.folder,))


@dataclass(frozen=True)
class Wanted:
    """A cell, the key of its artefact, and what its files were when that was computed."""

    cell: Cell
    key: str
    files: str


def wanted(cells: Sequence[Cell]) -> dict[Target, Wanted]:
    """Return what is to be kept of the outcome of each target."""
    return {
        cell.target: Wanted(cell, keys.artefact_key(cell), keys.files_key(cell)) for cell in cells
    }


def kept(
    wanted: dict[Target, Wanted], place: Place, job: Job, progress: Progress
) -> Iterator[Outcome]:
    """Convert, in the worker process, and keep each artefact as soon as it is there.

    What was made of a file that changed meanwhile isn't kept: its key is of what the file was.
    """
    for outcome in pipeline.convert(job, progress):
        asked = wanted[outcome.target]
        if outcome.checked and keys.files_key(asked.cell) == asked.files:
            place.cache.put(asked.key, _facts(outcome, outcome.checked), _files(outcome.checked))
        yield outcome


def _files(checked: Checked) -> dict[str, bytes]:
    return {ARTEFACT: checked.path.read_bytes()}


def _facts(outcome: Outcome, checked: Checked) -> dict[str, Any]:
    """Return what is kept of a conversion, rejected ones too."""
    content = checked.path.read_bytes()
    return {
        "digest": content[-DIGEST_BYTES:].decode(),
        "bytes": len(content),
        "reasons": outcome.verdict.reasons,
        "notes": outcome.notes,
        "ratio": checked.ratio,
        "recipe": asdict(checked.recipe),
        "images": checked.parity.images,
    }


def _measured(todo: list[tuple[Cell, Entry]], cache: Cache) -> None:
    """Measure artefacts under their own names, against an original that is asked once."""
    cell = todo[0][0]
    key = keys.reference_key(cell)
    known = cache.get(key)
    with cache.workshop() as folder:
        paths = [folder / each.name for each, _ in todo]
        for path, (_, made) in zip(paths, todo, strict=True):
            cache.take(made.files[ARTEFACT], path)
        reference = folder / f"{REFERENCE}{SUFFIX}"
        if known:
            cache.take(known.files[REFERENCE], reference)
        studies = measure_apart(MeasureRequest(cell, tuple(paths), reference))
        if not known:
            cache.put(key, {}, {REFERENCE: reference.read_bytes()})
    for (each, made), found in zip(todo, studies, strict=True):
        cache.put(keys.drift_key(each, made.files[ARTEFACT]), found)
