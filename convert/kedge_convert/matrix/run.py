"""The build as a story: read the matrix, make what is missing, judge, publish."""

from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from kedge_convert.matrix import gates
from kedge_convert.matrix import lock as baseline
from kedge_convert.matrix.cache import Cache
from kedge_convert.matrix.cells import Cell, CellGroup, groups
from kedge_convert.matrix.config import read_config
from kedge_convert.matrix.gates import Judgement
from kedge_convert.matrix.lock import Lock
from kedge_convert.matrix.make import Failures, Place, is_done, make
from kedge_convert.matrix.record import BuildReport, MachineReport, verdict_of
from kedge_convert.matrix.record import CellReport as Reported
from kedge_convert.matrix.stored import ARTEFACT, Known
from kedge_convert.staging import output_folder
from kedge_convert.worker.process import ProcessLimits
from kedge_runtime import __version__
from kedge_runtime.drift.gates import Verdict, worst
from kedge_runtime.errors import LostError
from kedge_runtime.files import write_whole
from kedge_runtime.identity import identity
from kedge_runtime.pool.executors import Pool, executor
from kedge_runtime.progress import Bar
from kedge_runtime.records import decode

ELSEWHERE = (
    "what a worker made of it isn't in --cache here: all machines must see that folder under the "
    "same path, and have the same versions and processor"
)
# Only what passed has the plain name.
SUFFIXES: dict[Verdict, str] = {"PASS": "", "FAIL": ".rejected", "INCONCLUSIVE": ".inconclusive"}


@dataclass(frozen=True)
class Settings:
    """How a build runs; none of it changes what comes out. `config`: a kedge.toml."""

    config: Path
    cache: Path
    limits: ProcessLimits
    pool: Pool
    silent: bool = False


def build(settings: Settings) -> BuildReport:
    """Build every cell that isn't known, judge all, and give what passes its name.

    Raises KedgeError for the user's mistakes; a cell that can't be made has failed.
    """
    config = read_config(settings.config)
    found = groups(config)
    cache, out = Cache(settings.cache.absolute()), Path(config.out)
    lock = baseline.read(baseline.place(settings.config))
    known = Known({cell.name: cell for group in found for cell in group.cells}, cache)
    cache.open()
    with output_folder(out):
        place = Place(cache, settings.limits, out.absolute(), settings.silent)
        failures = _made(found, place, settings.pool)
        cells = tuple(_judged(cell, known, failures, lock, out) for cell in known.cells.values())
    machine = decode(MachineReport, identity(), "machine")
    verdict = worst([cell.verdict for cell in cells])
    return BuildReport(settings.config.name, str(out), __version__, machine, verdict, cells)


def _made(found: tuple[CellGroup, ...], place: Place, pool: Pool) -> Failures:
    """Make what isn't known; a build that changes nothing starts no process."""
    todo = [group for group in found if not all(is_done(c, place.cache) for c in group.cells)]
    if not todo:
        return Failures({})
    bar = Bar(f"models on {pool.scheduler}", len(todo)) if pool.scheduler else None
    with executor(pool) as workers, bar or nullcontext():
        futures = [workers.submit(make, group.rooted(), place) for group in todo]
        done = []
        for group, future in zip(todo, futures, strict=True):
            done.append(_ended(group, future, place.cache))
            if bar:
                bar.advance()
    reasons = {name: why for each in done for name, why in each.reasons.items()}
    return Failures(reasons, tuple(name for each in done for name in each.made))


def _ended(group: CellGroup, future: Future[Failures], cache: Cache) -> Failures:
    """Return what became of a group; one that ends its workers has failed, and the others go on."""
    try:
        return future.result()
    except LostError as error:
        left = [cell for cell in group.cells if not is_done(cell, cache)]
        return Failures({cell.name: (f"{group.name}: {error}",) for cell in left})


def _judged(cell: Cell, known: Known, failures: Failures, lock: Lock, out: Path) -> Reported:
    """Return a cell as reports have it, its file published."""
    found = known.of(cell)
    if found is None or not found.is_whole:
        _publish(out / cell.name, None, "FAIL")
        reasons = failures.reasons.get(cell.name, (ELSEWHERE,))
        return replace(_head(cell), gates=(gates.failed(reasons),))
    accepted = lock.cell.get(cell.name)
    judged = gates.judge(found, accepted)
    verdict = verdict_of(judged)
    content = known.cache.content(found.entry.files[ARTEFACT])
    path = _publish(out / cell.name, content, verdict)
    reported = replace(
        _head(cell),
        verdict=verdict,
        gates=judged,
        notes=(*found.entry.facts["notes"], *_notes(cell)),
        cached=cell.name not in failures.made,
        baseline=None if accepted is None else gates.against(found, accepted),
    )
    return _with_figures(reported, found, path)


def _head(cell: Cell) -> Reported:
    """Return what is known of a cell before anything is made of it."""
    return Reported(
        name=cell.name,
        model=cell.model.name,
        target=str(cell.target),
        options=cell.variant.label.lstrip("."),
        verdict="FAIL",
        gates=(),
        notes=(),
        cached=False,
        images=cell.model.images,
    )


def _with_figures(reported: Reported, found: Judgement, path: Path) -> Reported:
    facts, drift = found.entry.facts, found.drift
    recipe = dict(facts["recipe"])
    layers = tuple(recipe.pop("float_layers"))
    if drift:
        # It was measured elsewhere, for gates that aren't known there.
        placed = replace(drift.artefact, path=str(path))
        drift = replace(drift, artefact=placed, gates=(), verdict=reported.verdict)
    return replace(
        reported,
        path=str(path),
        digest=found.digest,
        bytes=found.bytes,
        ratio=facts["ratio"],
        drift=drift,
        latency_ratio=None if found.ratio is None else found.ratio.value,
        by_layer=found.by_layer,
        **recipe,
        kept=layers,
    )


def _notes(cell: Cell) -> tuple[str, ...]:
    model = cell.model
    if model.images and model.calibrate and cell.target.needs_calibration:
        folders = [Path(folder).resolve() for folder in (model.images, model.calibrate)]
        if folders[0] == folders[1]:
            return ("measured on pictures that it was calibrated with: drift looks smaller so",)
    return ()


def _publish(path: Path, content: bytes | None, verdict: Verdict) -> Path:
    """Give an artefact the name that its verdict allows, and take away what isn't true any more."""
    named = path.with_name(path.name + SUFFIXES[verdict])
    for suffix in SUFFIXES.values():
        other = path.with_name(path.name + suffix)
        if other != named or content is None:
            other.unlink(missing_ok=True)
    if content is not None and not (named.exists() and named.read_bytes() == content):
        write_whole(named, content)
    return named
