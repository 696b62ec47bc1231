"""Read what the cache has of a cell, and find out the cheap rest now."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from kedge_convert.device.fit import fit
from kedge_convert.drift.layers import Localisation
from kedge_convert.export.exported import Recipe
from kedge_convert.matrix import keys
from kedge_convert.matrix.cache import Cache, Entry
from kedge_convert.matrix.cells import Cell
from kedge_convert.matrix.gates import Judgement, exactly, ratio, within
from kedge_models import cards
from kedge_models.devices import device
from kedge_runtime.artefact.file import Artefact, read_artefact
from kedge_runtime.checks import bench
from kedge_runtime.checks.hardware import Finding
from kedge_runtime.drift.gates import Estimate
from kedge_runtime.drift.report import Drift
from kedge_runtime.errors import KedgeError
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.records import decode

ARTEFACT = "artefact"
Found = TypeVar("Found")


@dataclass(frozen=True)
class Conversion:
    """What is kept of a conversion, rejected ones too.

    `bytes`: the file's size; `images`: how many it was checked with.
    """

    digest: str
    bytes: int
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    ratio: float
    recipe: Recipe
    images: int


@dataclass(frozen=True)
class Study:
    """What is kept of a measurement."""

    drift: Drift
    by_layer: Localisation | None


def artefact(cell: Cell, cache: Cache) -> Entry | None:
    """Return a cell's conversion, if it is known and its file is what the cell asks for."""
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


def study(cell: Cell, cache: Cache, made: Entry) -> Study | None:
    """Return the measurement of a cell's artefact, if it is known and of that."""
    key = keys.drift_key(cell, made.files[ARTEFACT])
    found = _read(key, cache, lambda facts: decode(Study, facts, "measurement"))
    if found and found.drift.artefact.digest != made.facts["digest"]:
        cache.doubt(key, f"is of another artefact ({found.drift.artefact.digest})")
        return None
    return found


def estimate(key: str, cache: Cache) -> Estimate | None:
    """Return a latency's ratio, if it is known."""
    return _read(key, cache, lambda facts: decode(Estimate, facts, "latency"))


def findings(key: str, cache: Cache) -> dict[str, Finding] | None:
    """Return what a device was found to make of an artefact, if it is known."""
    return _read(
        key, cache, lambda facts: {what: decode(Finding, facts[what], what) for what in facts}
    )


def _read(key: str, cache: Cache, read: Callable[[dict[str, Any]], Found]) -> Found | None:
    """Return what the facts of an entry stand for, None where there are none of that kind."""
    entry = cache.get(key)
    try:
        return None if entry is None else read(entry.facts)
    except KedgeError as error:
        cache.doubt(key, str(error))
        return None


def _mismatch(cell: Cell, entry: Entry, blob: Path) -> str:
    """Return what a cell's artefact has otherwise than asked for or noted, "" for nothing.

    Raises ContractError for facts of another kind, ArtefactError for a file without a right seal.
    """
    facts = decode(Conversion, entry.facts, "conversion")
    found = read_artefact(blob, cell.target.format)
    for what, (has, asked) in _pairs(cell, facts, found, blob).items():
        if has != asked:
            return f"its {what} is {has!r}, asked for is {asked!r}"
    source = found.contract.provenance.source
    return "" if source in _names(cell) else f"it was made from {source!r}"


def _pairs(
    cell: Cell, facts: Conversion, found: Artefact, blob: Path
) -> dict[str, tuple[Any, Any]]:
    model, provenance = cell.model, found.contract.provenance
    return {
        "digest": (found.digest, facts.digest),
        "size": (blob.stat().st_size, facts.bytes),
        "target": (provenance.target, str(cell.target)),
        "device": (provenance.device, model.profile.name if model.profile else ""),
        "output": (provenance.output, model.output or ""),
        "signature": (provenance.signature, model.signature or ""),
    }


def _names(cell: Cell) -> set[str]:
    """Return how the converter may call a cell's model: by its file, or by its card."""
    source = cell.model.source
    by_card = {name.lower() for name in cards() if name.lower() == source.lower()}
    places = (Path(source), Path(source).resolve())
    by_file = {name for place in places for name in (place.name, place.stem)}
    return by_card | by_file


Made = tuple[Cell, Entry]


@dataclass(frozen=True)
class Known:
    """All cells by their names, and the cache."""

    cells: dict[str, Cell]
    cache: Cache

    def of(self, cell: Cell) -> Judgement | None:
        """Return what is known of a cell's artefact, or None when there is none."""
        entry = artefact(cell, self.cache)
        if entry is None:
            return None
        found = Judgement(
            cell, entry, ratio=self._ratio(cell, entry), findings=self._fit(cell, entry)
        )
        measured = study(cell, self.cache, entry) if cell.model.images else None
        if measured is None:
            return found
        return replace(found, drift=measured.drift, by_layer=measured.by_layer)

    def _ratio(self, cell: Cell, entry: Entry) -> Estimate | None:
        """Return the latency as a share of float32's, where that is gated and was made.

        They are timed here, one after the other, when everything else is done.
        """
        limit = cell.gates.max_latency_ratio
        if limit is None:
            return None
        if cell.name == cell.float32:
            return exactly(1.0)
        other = self.cells[cell.float32]
        reference = artefact(other, self.cache)
        return self._timed((cell, entry), (other, reference), limit) if reference else None

    def _timed(self, made: Made, reference: Made, limit: float) -> Estimate:
        key = keys.timing_key(*(entry.files[ARTEFACT] for _, entry in (made, reference)))
        known = estimate(key, self.cache)
        # What left the gate open may have been a busy machine: it isn't believed for good.
        if known and within(known, limit) != "INCONCLUSIVE":
            return known
        found = ratio(self._seconds(*made), self._seconds(*reference))
        self.cache.put(key, asdict(found))
        return found

    def _seconds(self, cell: Cell, entry: Entry) -> list[float]:
        with self._file(cell, entry) as path, bench.images_for((), [path]) as pictures:
            timing = bench.measure_apart(bench.BenchCase(path), bench.Plan(pictures))
        return list(timing.total.tolist())

    def _fit(self, cell: Cell, entry: Entry) -> dict[str, Finding]:
        name = cell.gates.device
        if name is None:
            return {}
        key = keys.fit_key(cell, entry.files[ARTEFACT])
        known = findings(key, self.cache)
        if known is not None:
            return known
        with self._file(cell, entry) as path:
            found = fit(inspect(path), device(name), cell.gates.on_device).findings
        self.cache.put(key, {what: asdict(each) for what, each in found.items()})
        return found

    @contextmanager
    def _file(self, cell: Cell, entry: Entry) -> Iterator[Path]:
        """Yield an artefact under its own name: in the cache it has none."""
        with self.cache.workshop() as folder:
            path = folder / cell.name
            self.cache.take(entry.files[ARTEFACT], path)
            yield path
