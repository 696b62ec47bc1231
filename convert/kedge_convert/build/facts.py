"""What is known of a cell's artefact: read from the cache or, where it is cheap, found out now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kedge_convert.build import keys
from kedge_convert.build.cache import Cache, Entry
from kedge_convert.build.gates import Found, exactly, ratio, within
from kedge_convert.build.matrix import Cell
from kedge_convert.build.stored import ARTEFACT, artefact, estimate, findings, study
from kedge_convert.edge.fit import fit
from kedge_models.devices import device
from kedge_runtime import bench
from kedge_runtime.drift.gates import Estimate
from kedge_runtime.findings import Finding
from kedge_runtime.inspect.report import inspect

Made = tuple[Cell, Entry]


@dataclass(frozen=True)
class Known:
    """All cells by their names, and the cache."""

    cells: dict[str, Cell]
    cache: Cache

    def of(self, cell: Cell) -> Found | None:
        """Return what is known of a cell's artefact, or None when there is none."""
        entry = artefact(cell, self.cache)
        if entry is None:
            return None
        found = Found(cell, entry, ratio=self._ratio(cell, entry), findings=self._fit(cell, entry))
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
        with self._file(cell, entry) as path, bench.pictures_for((), [path]) as pictures:
            timing = bench.measure_apart(bench.Case(path), bench.Plan(pictures))
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
