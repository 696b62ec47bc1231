"""What `kedge doctor` says of one thing, and where it looks."""

from dataclasses import dataclass, field
from pathlib import Path
from platform import machine
from typing import Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found. `fix` says what to do about it, if there is anything to do."""

    state: State
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Machine:
    """Where a check looks: this machine, or in tests a folder that plays one."""

    root: Path = Path("/")
    processor: str = field(default_factory=machine)

    def read(self, path: str) -> str:
        """Return a file's text, stripped, or nothing when it can't be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
        except OSError:
            return ""

    def find(self, pattern: str) -> list[Path]:
        """Return what matches a pattern below the root, in order."""
        try:
            return sorted(self.root.glob(pattern))
        except OSError:
            return []
