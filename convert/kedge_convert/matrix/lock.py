"""Read and write `kedge.lock.toml`: the accepted artefacts, committed with the code."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from kedge_convert.matrix.record import BuildReport, CellReport, verdict_of
from kedge_models.toml import parse
from kedge_models.toml import read as read_toml
from kedge_runtime.errors import ContractError
from kedge_runtime.files import write_whole
from kedge_runtime.records import shown

SUFFIX = ".lock.toml"
REMEDY = "restore it from version control, or delete it and run --update-baseline"
# Written between quotes without escapes.
_DIGEST = re.compile("[0-9a-z:]{1,71}")
HEAD = "# Written by `kedge build --update-baseline`: the accepted artefacts.\nschema = 1\n"


@dataclass(frozen=True)
class Accepted:
    """Hold an accepted artefact: its digest, its size, and its drift where it was measured.

    `drop`: the float model's accuracy minus the artefact's.
    """

    digest: str
    bytes: int
    drop: float | None = None
    agreement: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no artefact has."""
        if not _DIGEST.fullmatch(self.digest):
            raise ContractError(
                f"digest is {shown(self.digest)}, expected e.g. sha256:0123; {REMEDY}"
            )
        for name, low, high in (("bytes", 0, 2**63), ("drop", -1, 1), ("agreement", 0, 1)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ContractError(f"{name} is {value}, allowed are {low} to {high}; {REMEDY}")


@dataclass(frozen=True)
class Lock:
    """Hold all accepted artefacts by the cell's name."""

    cell: dict[str, Accepted] = field(default_factory=dict)
    schema: int = 1

    def __post_init__(self) -> None:
        """Refuse the file of another version."""
        if self.schema != 1:
            raise ContractError(f"its schema is {self.schema}, this kedge reads 1: update kedge")


def lock_path(config: Path) -> Path:
    """Return the lock file of a `kedge.toml`: `kedge.lock.toml` beside it."""
    return config.with_name(config.stem + SUFFIX)


def read(path: Path) -> Lock:
    """Read a lock file; a missing one is empty.

    Raises UsageError for an unreadable file, ContractError for a damaged one.
    """
    if not os.path.lexists(path):
        return Lock()
    text = read_toml(path, REMEDY)
    try:
        return parse(Lock, text, path.name)
    except ContractError as error:
        headed = str(error).startswith(path.name)
        raise error if headed else ContractError(f"{path.name}: {error}") from None


def write(path: Path, lock: Lock) -> None:
    """Write a lock file, cells in alphabetical order."""
    tables = [_table(name, lock.cell[name]) for name in sorted(lock.cell)]
    write_whole(path, "\n".join([HEAD, *tables]).encode())


def _table(name: str, accepted: Accepted) -> str:
    # Names and digests hold no quotes: config.NAME and Accepted ensure it.
    lines = [
        f'{key} = "{v}"' if isinstance(v, str) else f"{key} = {v!r}" for key, v in _given(accepted)
    ]
    return "\n".join([f'[cell."{name}"]', *lines, ""])


def _given(accepted: Accepted) -> list[tuple[str, str | int | float]]:
    return [(key, value) for key, value in vars(accepted).items() if value is not None]


def updated(lock: Lock, report: BuildReport) -> Lock:
    """Accept every cell that passes its own gates; the others keep their accepted artefact."""
    cells = {cell.name: _accepted(cell) or lock.cell.get(cell.name) for cell in report.cells}
    return Lock({name: accepted for name, accepted in cells.items() if accepted})


def _accepted(cell: CellReport) -> Accepted | None:
    own = tuple(gate for gate in cell.gates if gate.name != "baseline")
    if cell.digest is None or cell.bytes is None or verdict_of(own) == "FAIL":
        return None
    drift = cell.drift
    if drift is None:
        return Accepted(cell.digest, cell.bytes)
    drop = None if drift.top1 is None else drift.top1.drop.value
    return Accepted(cell.digest, cell.bytes, drop, drift.agreement.value)
