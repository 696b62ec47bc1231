"""Gather the evidence of a cell: from the cache, and what is cheap is measured now."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import comb
from pathlib import Path
from typing import Any, TypeVar

from kedge_convert.device.fit import fit
from kedge_convert.drift.layers import Localisation
from kedge_convert.export.exported import Recipe
from kedge_convert.matrix import keys
from kedge_convert.matrix.cache import Cache, Entry
from kedge_convert.matrix.cells import Cell
from kedge_models import cards
from kedge_models.devices import device
from kedge_runtime.artefact.file import Artefact, read_artefact
from kedge_runtime.checks import bench
from kedge_runtime.checks.hardware import Finding
from kedge_runtime.drift.gates import Estimate, at_most
from kedge_runtime.drift.report import Drift
from kedge_runtime.errors import KedgeError
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.records import decode

ARTEFACT = "artefact"
Decoded = TypeVar("Decoded")
# Two medians, each within its interval with this probability, both are with 95 %.
LEVEL = 0.975


@dataclass(frozen=True)
class Conversion:
    """Hold the cached facts of a conversion, rejected ones included.

    `bytes`: the file's size; `images`: the number of validation images; `seconds`: what it took.
    The first target of a model includes its preparation.
    """

    digest: str
    bytes: int
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    ratio: float
    recipe: Recipe
    images: int
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """Hold the cached facts of a measurement.

    `seconds`: what it took; artefacts that are measured together share the time equally.
    """

    drift: Drift
    by_layer: Localisation | None
    seconds: float = 0.0


def artefact(cell: Cell, cache: Cache) -> Entry | None:
    """Return a cell's cached conversion, if its file is the one that the cell asks for."""
    key = keys.artefact_key(cell)
    entry = cache.get(key)
    if entry is None:
        return None
    try:
        reason = _mismatch(cell, entry, cache.blob(entry.files[ARTEFACT]))
    except (KedgeError, KeyError) as error:
        reason = str(error)
    if reason:
        cache.doubt(key, reason)
        return None
    return entry


def measurement(cell: Cell, cache: Cache, entry: Entry) -> Measurement | None:
    """Return the cached measurement of a cell's artefact."""
    key = keys.drift_key(cell, entry.files[ARTEFACT])
    cached = _read(key, cache, lambda facts: decode(Measurement, facts, "measurement"))
    if cached and cached.drift.artefact.digest != entry.facts["digest"]:
        cache.doubt(key, f"is of another artefact ({cached.drift.artefact.digest})")
        return None
    return cached


def estimate(key: str, cache: Cache) -> Estimate | None:
    """Return a cached latency ratio."""
    return _read(key, cache, lambda facts: decode(Estimate, facts, "latency"))


def findings(key: str, cache: Cache) -> dict[str, Finding] | None:
    """Return the cached findings of a device."""
    return _read(
        key, cache, lambda facts: {what: decode(Finding, facts[what], what) for what in facts}
    )


def _read(key: str, cache: Cache, read: Callable[[dict[str, Any]], Decoded]) -> Decoded | None:
    """Decode the facts of an entry; None where there are none of that kind."""
    entry = cache.get(key)
    try:
        return None if entry is None else read(entry.facts)
    except KedgeError as error:
        cache.doubt(key, str(error))
        return None


def _mismatch(cell: Cell, entry: Entry, blob: Path) -> str:
    """Return what an artefact has that differs from its cell or its facts, "" for nothing.

    Raises ContractError for facts of another kind, ArtefactError for a file without a valid seal.
    """
    facts = decode(Conversion, entry.facts, "conversion")
    sealed = read_artefact(blob, cell.target.format)
    for what, (has, expected) in _pairs(cell, facts, sealed, blob).items():
        if has != expected:
            return f"its {what} is {has!r}, expected {expected!r}"
    source = sealed.contract.provenance.source
    return "" if source in _names(cell) else f"it was made from {source!r}"


def _pairs(
    cell: Cell, facts: Conversion, sealed: Artefact, blob: Path
) -> dict[str, tuple[Any, Any]]:
    model, provenance = cell.model, sealed.contract.provenance
    return {
        "digest": (sealed.digest, facts.digest),
        "size": (blob.stat().st_size, facts.bytes),
        "target": (provenance.target, str(cell.target)),
        "device": (provenance.device, model.profile.name if model.profile else ""),
        "output": (provenance.output, model.output or ""),
        "signature": (provenance.signature, model.signature or ""),
    }


def _names(cell: Cell) -> set[str]:
    """Return the names that the converter may record for a cell's model: a file's or a card's."""
    source = cell.model.source
    by_card = {name.lower() for name in cards() if name.lower() == source.lower()}
    paths = (Path(source), Path(source).resolve())
    by_file = {name for path in paths for name in (path.name, path.stem)}
    return by_card | by_file


@dataclass(frozen=True)
class CellEvidence:
    """Hold what is known of a cell's artefact.

    `entry`: its conversion; `latency_ratio`: to the float32 artefact's, None where no gate asks or
    that artefact is missing; `findings`: of the gate's device, by name; `measuring`: the seconds
    that measuring the drift took.
    """

    cell: Cell
    entry: Entry
    drift: Drift | None = None
    by_layer: Localisation | None = None
    latency_ratio: Estimate | None = None
    findings: dict[str, Finding] = field(default_factory=dict)
    measuring: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether the drift is known, if there are images to measure it on."""
        return self.drift is not None or not self.cell.model.images

    @cached_property
    def conversion(self) -> Conversion:
        """The facts of its conversion."""
        return decode(Conversion, self.entry.facts, "conversion")


@dataclass(frozen=True)
class EvidenceStore:
    """Hold all cells by their names, and the cache."""

    cells: dict[str, Cell]
    cache: Cache

    def of(self, cell: Cell) -> CellEvidence | None:
        """Return the evidence of a cell, or None without an artefact."""
        entry = artefact(cell, self.cache)
        if entry is None:
            return None
        measured = measurement(cell, self.cache, entry) if cell.model.images else None
        return CellEvidence(
            cell,
            entry,
            drift=measured.drift if measured else None,
            by_layer=measured.by_layer if measured else None,
            latency_ratio=self._latency_ratio(cell, entry),
            findings=self._findings(cell, entry),
            measuring=measured.seconds if measured else 0.0,
        )

    def _latency_ratio(self, cell: Cell, entry: Entry) -> Estimate | None:
        """Return the latency as a share of float32's, where a gate asks for it.

        Both are timed here, one after the other, when all conversions are done.
        """
        limit = cell.gates.max_latency_ratio
        if limit is None:
            return None
        if cell.name == cell.float32:
            return exactly(1.0)
        other = self.cells[cell.float32]
        reference = artefact(other, self.cache)
        return self._timed((cell, entry), (other, reference), limit) if reference else None

    def _timed(
        self, built: tuple[Cell, Entry], reference: tuple[Cell, Entry], limit: float
    ) -> Estimate:
        key = keys.timing_key(*(entry.files[ARTEFACT] for _, entry in (built, reference)))
        cached = estimate(key, self.cache)
        # A busy machine may have left the gate open: such a ratio is measured again.
        if cached and at_most(cached, limit) != "INCONCLUSIVE":
            return cached
        measured = ratio(self._seconds(*built), self._seconds(*reference))
        self.cache.put(key, asdict(measured))
        return measured

    def _seconds(self, cell: Cell, entry: Entry) -> list[float]:
        with self._file(cell, entry) as path, bench.images_for((), [path]) as images:
            timing = bench.measure_apart(bench.BenchCase(path), bench.Plan(images))
        return list(timing.total.tolist())

    def _findings(self, cell: Cell, entry: Entry) -> dict[str, Finding]:
        name = cell.gates.device
        if name is None:
            return {}
        key = keys.fit_key(cell, entry.files[ARTEFACT])
        cached = findings(key, self.cache)
        if cached is not None:
            return cached
        with self._file(cell, entry) as path:
            found = fit(inspect(path), device(name), cell.gates.on_device).findings
        self.cache.put(key, {what: asdict(finding) for what, finding in found.items()})
        return found

    @contextmanager
    def _file(self, cell: Cell, entry: Entry) -> Iterator[Path]:
        """Yield an artefact under its own name; in the cache it has a digest for a name."""
        with self.cache.workshop() as folder:
            path = folder / cell.name
            self.cache.take(entry.files[ARTEFACT], path)
            yield path


def exactly(value: float) -> Estimate:
    """Return a figure without uncertainty."""
    return Estimate(value, value, value)


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> Estimate:
    """Return the ratio of two medians, with an interval that covers it in 95 % of cases or more.

    Each median has its distribution-free interval, between two order statistics (Conover 1999,
    Practical Nonparametric Statistics, 3.2); both hold at once by Bonferroni's inequality.
    """
    (low, middle, high), (least, usual, most) = _median(seconds), _median(reference)
    return Estimate(middle / usual, low / most, high / least)


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower end, the median and the upper end."""
    ordered, n = sorted(values), len(values)
    # The r-th smallest lies above the median with P(Binomial(n, 1/2) < r).
    below, r = 1 / 2**n, 0
    while below <= (1 - LEVEL) / 2:
        r += 1
        below += comb(n, r) / 2**n
    rank = max(r, 1) - 1
    return ordered[rank], (ordered[(n - 1) // 2] + ordered[n // 2]) / 2, ordered[n - 1 - rank]
