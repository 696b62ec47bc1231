"""Convert and measure what the cache lacks of a group, and put the results into the cache."""

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from kedge_convert import pipeline
from kedge_convert.asking import MissingError
from kedge_convert.drift.hooks import attribute, measure_layers, record
from kedge_convert.drift.layers import Localisation
from kedge_convert.job import Checked, Job, Outcome
from kedge_convert.matrix import keys
from kedge_convert.matrix.cache import Cache, Entry
from kedge_convert.matrix.cells import Cell, CellGroup
from kedge_convert.matrix.config import ModelConfig
from kedge_convert.matrix.evidence import ARTEFACT, Conversion, Measurement, artefact, measurement
from kedge_convert.matrix.verdict import Failures
from kedge_convert.targets import Target
from kedge_convert.worker import supervisor
from kedge_convert.worker.process import ProcessLimits
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.content import DIGEST_BYTES
from kedge_runtime.drift.comparison import Comparison, DriftRequest, compare, prepare
from kedge_runtime.drift.recording import Against
from kedge_runtime.drift.reference import SUFFIX
from kedge_runtime.drift.report import Drift
from kedge_runtime.drift.summary import GateLimits
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import KedgeError, LostError
from kedge_runtime.files import write_whole
from kedge_runtime.output import say
from kedge_runtime.pool import ended_by_errors, process


@dataclass(frozen=True)
class MeasureRequest:
    """Hold artefacts of one model and options, and the path of the recorded reference."""

    cell: Cell
    artefacts: tuple[Path, ...]
    reference: Path


def measure_apart(request: MeasureRequest) -> list[Measurement]:
    """Measure each artefact's drift and layers in a process of its own.

    Raises UsageError for unusable images, ground truth or models; LostError when the process dies.
    There is no second try: it would need as much memory.
    """
    with process() as alone, ended_by_errors():
        try:
            return alone.submit(measure, request).result()
        except BrokenProcessPool:
            raise LostError("the process that measured its drift died") from None


def measure(request: MeasureRequest) -> list[Measurement]:
    """Do the same in this process."""
    model = request.cell.model
    comparison = prepare(
        DriftRequest(
            request.artefacts, Path(str(model.images)), model.truth, GateLimits(), EngineOptions()
        )
    )
    against = Against(model.source, model.weights, comparison.artefacts[0])
    if not request.reference.exists():
        record(against, comparison.images, request.reference)
    drifts = compare(comparison, request.reference)
    return _traced(model, against, comparison, drifts)


def _traced(
    model: ModelConfig, against: Against, comparison: Comparison, drifts: Sequence[Drift]
) -> list[Measurement]:
    """Add the attribution and the layers that the model asks for."""
    artefacts = comparison.artefacts
    if model.attribute:
        sample = comparison.sample(model.attribute)
        found = attribute(against, artefacts, sample, comparison.request.engine)
        drifts = [replace(d, attribution=a) for d, a in zip(drifts, found, strict=True)]
    layers: list[Localisation | None] = [None] * len(drifts)
    if model.by_layer:
        sample = comparison.sample(model.by_layer)
        layers = list(measure_layers(against, artefacts, sample))
    pairs = zip(drifts, layers, strict=True)
    return [Measurement(drift, each) for drift, each in pairs]


REFERENCE = "reference"
CHANGED = "its files changed during the conversion; build again"


@dataclass(frozen=True)
class Workspace:
    """Hold the cache, the limits of a conversion, and the folder of its log."""

    cache: Cache
    limits: ProcessLimits
    out: Path
    silent: bool = False


def is_done(cell: Cell, cache: Cache) -> bool:
    """Whether the cache has everything of a cell."""
    entry = artefact(cell, cache)
    if entry is None:
        return False
    return not cell.model.images or measurement(cell, cache, entry) is not None


def make(group: CellGroup, workspace: Workspace) -> Failures:
    """Convert and measure what the cache lacks. Raises KedgeError for unusable images."""
    cache = workspace.cache
    waiting = partial(_say, f"{group.name}: waits for another build of it")
    with cache.lock(keys.group_key(group), waiting):
        missing = [cell for cell in group.cells if artefact(cell, cache) is None]
        reasons = _converted(group, missing, workspace) if missing else {}
        built = [(cell, artefact(cell, cache)) for cell in group.cells]
        pairs = [(cell, entry) for cell, entry in built if entry and cell.model.images]
        if todo := [pair for pair in pairs if not measurement(pair[0], cache, pair[1])]:
            _measure_missing(todo, cache)
    converted = tuple(cell.name for cell in missing)
    return Failures(reasons, converted, tuple(cell.name for cell, _ in todo))


def _say(line: str) -> None:
    say(line, prefix="")


def _converted(
    group: CellGroup, cells: list[Cell], workspace: Workspace
) -> dict[str, tuple[str, ...]]:
    """Convert cells; return the reasons of those without a file."""
    with workspace.cache.workshop() as folder:
        try:
            outcomes = _convert(group, cells, workspace, folder)
        except MissingError as error:  # a key of kedge.toml that only the loaded model asks for
            raise MissingError(f"{group.name}: {error}") from None
        except KedgeError as error:  # it fails this model only, such as an unreadable file
            return {cell.name: (str(error),) for cell in cells}
        # Named after the group: several groups may have one source.
        log, written = workspace.out / f"{group.name}.log", group.job((), folder).log
        if written.exists():
            write_whole(log, written.read_bytes())
    failed = {}
    for cell, outcome in zip(cells, outcomes, strict=True):
        if artefact(cell, workspace.cache) is None:
            reasons = outcome.verdict.reasons or (CHANGED,)
            failed[cell.name] = tuple(why.replace(str(written), str(log)) for why in reasons)
    return failed


def _convert(
    group: CellGroup, cells: list[Cell], workspace: Workspace, folder: Path
) -> list[Outcome]:
    targets = tuple(cell.target for cell in cells)
    work = partial(convert_and_store, pending(cells), workspace)
    with Progress(silent=workspace.silent) as progress:
        progress.note(f"{group.name}: {', '.join(map(str, targets))}")
        job, bounds = group.job(targets, folder), workspace.limits.bounds()
        return supervisor.convert(job, progress, bounds, work, (workspace.cache.folder,))


@dataclass(frozen=True)
class Pending:
    """Hold a cell, the key of its artefact, and a digest of its files at that time."""

    cell: Cell
    key: str
    files: str


def pending(cells: Sequence[Cell]) -> dict[Target, Pending]:
    """Return the cells to convert by their targets."""
    return {
        cell.target: Pending(cell, keys.artefact_key(cell), keys.files_key(cell)) for cell in cells
    }


def convert_and_store(
    cells: dict[Target, Pending], workspace: Workspace, job: Job, progress: Progress
) -> Iterator[Outcome]:
    """Convert in the worker process, and cache each artefact at once.

    An artefact of files that changed meanwhile isn't cached: its key is of the earlier content.
    """
    started = perf_counter()
    for outcome in pipeline.convert(job, progress):
        seconds, started = perf_counter() - started, perf_counter()
        waiting = cells[outcome.target]
        if outcome.checked and keys.files_key(waiting.cell) == waiting.files:
            facts = asdict(_conversion(outcome, outcome.checked, seconds))
            workspace.cache.put(waiting.key, facts, _files(outcome.checked))
        yield outcome


def _files(checked: Checked) -> dict[str, bytes]:
    return {ARTEFACT: checked.path.read_bytes()}


def _conversion(outcome: Outcome, checked: Checked, seconds: float) -> Conversion:
    content = checked.path.read_bytes()
    return Conversion(
        digest=content[-DIGEST_BYTES:].decode(),
        bytes=len(content),
        reasons=outcome.verdict.reasons,
        notes=outcome.notes,
        ratio=checked.ratio,
        recipe=checked.recipe,
        images=checked.parity.images,
        seconds=seconds,
    )


def _measure_missing(todo: list[tuple[Cell, Entry]], cache: Cache) -> None:
    """Measure artefacts under their own names; the float model answers once."""
    cell = todo[0][0]
    key = keys.reference_key(cell)
    recorded = cache.get(key)
    with cache.workshop() as folder:
        paths = [folder / each.name for each, _ in todo]
        for path, (_, entry) in zip(paths, todo, strict=True):
            cache.take(entry.files[ARTEFACT], path)
        reference = folder / f"{REFERENCE}{SUFFIX}"
        if recorded:
            cache.take(recorded.files[REFERENCE], reference)
        started = perf_counter()
        measured = measure_apart(MeasureRequest(cell, tuple(paths), reference))
        seconds = (perf_counter() - started) / len(todo)
        if not recorded:
            cache.put(key, {}, {REFERENCE: reference.read_bytes()})
    for (each, entry), found in zip(todo, measured, strict=True):
        timed = replace(found, seconds=seconds)
        cache.put(keys.drift_key(each, entry.files[ARTEFACT]), asdict(timed))
