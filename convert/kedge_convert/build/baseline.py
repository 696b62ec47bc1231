"""`kedge.lock.toml`: the artefacts that were accepted, by name, to be committed with the code."""

from dataclasses import dataclass, field
from pathlib import Path

from kedge_convert.reports.record import Cell, Report, verdict_of
from kedge_models.shelf import parse
from kedge_runtime.files import write_whole

SUFFIX = ".lock.toml"
HEAD = "# Written by `kedge build --update-baseline`: what was accepted.\nschema = 1\n"


@dataclass(frozen=True)
class Accepted:
    """One artefact: its seal's digest, its size, and its drift where that was measured."""

    digest: str
    bytes: int
    drop: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Lock:
    """All accepted artefacts by the cell's name."""

    cell: dict[str, Accepted] = field(default_factory=dict)
    schema: int = 1


def place(config: Path) -> Path:
    """Return the lock file of a `kedge.toml`: `kedge.lock.toml` beside it."""
    return config.with_name(config.stem + SUFFIX)


def read(path: Path) -> Lock:
    """Read a lock file; none accepts nothing. Raises ContractError for a damaged one."""
    return parse(Lock, path.read_text(encoding="utf-8"), path.name) if path.exists() else Lock()


def write(path: Path, lock: Lock) -> None:
    """Write a lock file, cells in alphabetical order."""
    tables = [_table(name, lock.cell[name]) for name in sorted(lock.cell)]
    write_whole(path, "\n".join([HEAD, *tables]).encode())


def _table(name: str, accepted: Accepted) -> str:
    # Names and digests hold no quotes: config.NAME and the seal see to that.
    lines = [
        f'{key} = "{v}"' if isinstance(v, str) else f"{key} = {v!r}" for key, v in _given(accepted)
    ]
    return "\n".join([f'[cell."{name}"]', *lines, ""])


def _given(accepted: Accepted) -> list[tuple[str, str | int | float]]:
    return [(key, value) for key, value in vars(accepted).items() if value is not None]


def updated(lock: Lock, report: Report) -> Lock:
    """Accept every cell that holds its own gates; the others keep what was accepted before."""
    cells = {cell.name: _accepted(cell) or lock.cell.get(cell.name) for cell in report.cells}
    return Lock({name: accepted for name, accepted in cells.items() if accepted})


def _accepted(cell: Cell) -> Accepted | None:
    own = tuple(gate for gate in cell.gates if gate.name != "baseline")
    if cell.digest is None or cell.bytes is None or verdict_of(own) == "FAIL":
        return None
    drift = cell.drift
    if drift is None:
        return Accepted(cell.digest, cell.bytes)
    drop = None if drift.top1 is None else drift.top1.drop.value
    return Accepted(cell.digest, cell.bytes, drop, drift.agreement.value)
