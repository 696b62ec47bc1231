"""What the cache has of a cell, believed only as far as it fits what is asked for.

An entry proves that it is whole. Here its artefact proves that it is the one that the key stands
for: before it is published, its seal is read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kedge_convert.build import keys
from kedge_convert.build.cache import Cache, Entry
from kedge_convert.build.matrix import Cell
from kedge_convert.localise import Localisation
from kedge_convert.way import Way
from kedge_models import cards
from kedge_runtime.artefact import Artefact, read_artefact
from kedge_runtime.drift.gates import Estimate
from kedge_runtime.drift.report import Drift
from kedge_runtime.errors import KedgeError
from kedge_runtime.findings import Finding
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
    way: Way
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
    found = read_artefact(blob, cell.target.form)
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
    return by_card | {f"{name}-untrained" for name in by_card} | by_file
