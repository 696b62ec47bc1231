"""Build a matrix: read it, make what the cache lacks, judge every cell, publish."""

from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from kedge_convert.matrix import lock, verdict
from kedge_convert.matrix.cache import Cache
from kedge_convert.matrix.cells import Cell, CellGroup, check_keys, groups
from kedge_convert.matrix.config import read_config
from kedge_convert.matrix.evidence import ARTEFACT, CellEvidence, EvidenceStore
from kedge_convert.matrix.lock import Accepted
from kedge_convert.matrix.make import Workspace, is_done, make
from kedge_convert.matrix.record import BuildReport, CellReport, MachineReport, verdict_of
from kedge_convert.matrix.verdict import Failures
from kedge_convert.staging import output_folder
from kedge_convert.worker.process import ProcessLimits
from kedge_runtime import __version__
from kedge_runtime.checks.hardware import identity
from kedge_runtime.drift.gates import Verdict, worst
from kedge_runtime.errors import LostError
from kedge_runtime.files import write_whole
from kedge_runtime.pool import Pool, executor
from kedge_runtime.progress import Bar
from kedge_runtime.records import decode

# Only an artefact that passed has the plain name.
SUFFIXES: dict[Verdict, str] = {"PASS": "", "FAIL": ".rejected", "INCONCLUSIVE": ".inconclusive"}


@dataclass(frozen=True)
class BuildRequest:
    """Hold how a build runs; only `config`, a kedge.toml, changes the result."""

    config: Path
    cache: Path
    limits: ProcessLimits
    pool: Pool
    silent: bool = False


def build(request: BuildRequest) -> BuildReport:
    """Build every cell that the cache lacks, judge all, and publish the artefacts.

    Raises KedgeError for a usage error; a cell that can't be built has failed.
    """
    config = read_config(request.config)
    matrix = groups(config)
    for group in matrix:
        check_keys(group)
    cache, out = Cache(request.cache.absolute()), Path(config.out)
    accepted = lock.read(lock.lock_path(request.config)).cell
    store = EvidenceStore({cell.name: cell for group in matrix for cell in group.cells}, cache)
    cache.open()
    with output_folder(out):
        workspace = Workspace(cache, request.limits, out.absolute(), request.silent)
        failures = _make_missing(matrix, workspace, request.pool)
        cells = tuple(
            _reported(
                cell, store.of(cell), failures, accepted.get(cell.name), Publisher(cache, out)
            )
            for cell in store.cells.values()
        )
    machine = decode(MachineReport, identity(), "machine")
    overall = worst([cell.verdict for cell in cells])
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return BuildReport(request.config.name, str(out), __version__, machine, overall, cells, now)


def _make_missing(matrix: tuple[CellGroup, ...], workspace: Workspace, pool: Pool) -> Failures:
    """Make what the cache lacks; a build that changes nothing starts no process."""
    todo = [group for group in matrix if not all(is_done(c, workspace.cache) for c in group.cells)]
    if not todo:
        return Failures()
    bar = Bar(f"models on {pool.scheduler}", len(todo)) if pool.scheduler else None
    with executor(pool) as workers, bar or nullcontext():
        futures = [workers.submit(make, group.rooted(), workspace) for group in todo]
        done = []
        for group, future in zip(todo, futures, strict=True):
            done.append(_ended(group, future, workspace.cache))
            if bar:
                bar.advance()
    reasons = {name: why for each in done for name, why in each.reasons.items()}
    converted = tuple(name for each in done for name in each.converted)
    return Failures(reasons, converted, tuple(name for each in done for name in each.measured))


def _ended(group: CellGroup, future: Future[Failures], cache: Cache) -> Failures:
    """Return the failures of a group; one that ends its workers has failed, and others go on."""
    try:
        return future.result()
    except LostError as error:
        left = [cell for cell in group.cells if not is_done(cell, cache)]
        return Failures({cell.name: (f"{group.name}: {error}",) for cell in left})


@dataclass(frozen=True)
class Publisher:
    """Publish artefacts from a cache in a folder."""

    cache: Cache
    folder: Path

    def publish(self, name: str, evidence: CellEvidence, outcome: Verdict) -> Path:
        """Write a cell's artefact under the name of its verdict; return its path."""
        content = self.cache.content(evidence.entry.files[ARTEFACT])
        return publish(self.folder / name, content, outcome)


def _reported(
    cell: Cell,
    evidence: CellEvidence | None,
    failures: Failures,
    accepted: Accepted | None,
    publisher: Publisher,
) -> CellReport:
    """Judge a cell, publish its artefact, and return its report."""
    gates = verdict.judge_cell(cell.name, evidence, failures, accepted)
    head = replace(_head(cell), verdict=verdict_of(gates), gates=gates)
    if evidence is None or not evidence.is_complete:
        withdraw(publisher.folder / cell.name)
        return head
    path = publisher.publish(cell.name, evidence, head.verdict)
    reported = replace(
        head,
        notes=(*evidence.conversion.notes, *_notes(cell)),
        cached=cell.name not in failures.converted,
        baseline=None if accepted is None else verdict.compared(evidence, accepted),
        converting=evidence.conversion.seconds if cell.name in failures.converted else 0.0,
        measuring=_measuring(cell, evidence, failures),
    )
    return _with_figures(reported, evidence, path)


def _measuring(cell: Cell, evidence: CellEvidence, failures: Failures) -> float | None:
    if evidence.drift is None:
        return None
    return evidence.measuring if cell.name in failures.measured else 0.0


def _head(cell: Cell) -> CellReport:
    """Return a report with what the configuration says of a cell."""
    return CellReport(
        name=cell.name,
        model=cell.model.name,
        target=str(cell.target),
        options=cell.variant.label.lstrip("."),
        verdict="FAIL",
        gates=(),
        notes=(),
        cached=False,
        folder=cell.model.images,
    )


def _with_figures(reported: CellReport, evidence: CellEvidence, path: Path) -> CellReport:
    conversion, drift, ratio = evidence.conversion, evidence.drift, evidence.latency_ratio
    if drift:
        # It was measured under another path, and without the gates of kedge.toml.
        published = replace(drift.artefact, path=str(path))
        drift = replace(drift, artefact=published, gates=(), verdict=reported.verdict)
    recipe = conversion.recipe
    return replace(
        reported,
        path=str(path),
        digest=conversion.digest,
        bytes=conversion.bytes,
        ratio=conversion.ratio,
        precision=recipe.precision,
        method=recipe.method,
        ranges=recipe.ranges,
        float_layers=recipe.float_layers,
        copied_layers=recipe.copied_layers,
        device=recipe.device,
        drift=drift,
        latency_ratio=None if ratio is None else ratio.value,
        by_layer=evidence.by_layer,
    )


def _notes(cell: Cell) -> tuple[str, ...]:
    model = cell.model
    if model.images and model.calibrate and cell.target.needs_calibration:
        folders = [Path(folder).resolve() for folder in (model.images, model.calibrate)]
        if folders[0] == folders[1]:
            return ("measured on its calibration images, on which the drift is smaller",)
    return ()


def publish(path: Path, content: bytes, outcome: Verdict) -> Path:
    """Write an artefact under the name of its verdict, and remove its other names."""
    named = path.with_name(path.name + SUFFIXES[outcome])
    for suffix in SUFFIXES.values():
        other = path.with_name(path.name + suffix)
        if other != named:
            other.unlink(missing_ok=True)
    if not (named.exists() and named.read_bytes() == content):
        write_whole(named, content)
    return named


def withdraw(path: Path) -> None:
    """Remove the artefact of a cell that has none now, under all its names."""
    for suffix in SUFFIXES.values():
        path.with_name(path.name + suffix).unlink(missing_ok=True)
