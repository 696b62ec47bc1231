"""Findings: the smallest input that shows each, in a folder, with the command that repeats it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz import batches
from fuzz.trial import Fault

# Trials of a smaller input; a trial takes a process, ten milliseconds.
TRIALS = 150


@dataclass(frozen=True)
class Finding:
    """A fault at a door, and the first input that showed it."""

    door: str
    fault: Fault
    content: bytes

    @property
    def name(self) -> str:
        """The name of its files: door, kind of fault, and a digest of the place."""
        place = hashlib.sha256(self.fault.where.encode()).hexdigest()[:8]
        return f"{self.door.replace(' ', '-')}-{self.fault.kind}-{place}"

    @property
    def line(self) -> str:
        """It in one line."""
        return f"{self.door}: {self.fault.kind} {self.fault.where}"


def write(finding: Finding, folder: Path) -> Path:
    """Write the smallest input found that shows the same, and beside it what was said."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.name}.bin"
    path.write_bytes(smaller(finding))
    repeat = f"make fuzz DOOR='{finding.door}' INPUT={path}"
    text = f"{finding.line}\n\nrepeat: {repeat}\n\n{finding.fault.said}\n"
    path.with_suffix(".txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def smaller(finding: Finding) -> bytes:
    """Return a smaller input that shows the same fault, or the same input."""

    def shows(content: bytes) -> bool:
        fault = batches.alone(finding.door, content)
        return fault is not None and (fault.kind, fault.where) == _key(finding.fault)

    # What only shows after others, or once in a while, stays as it is.
    trials = TRIALS if finding.fault.kind != "hang" else 5
    return shrink(finding.content, shows, trials) if shows(finding.content) else finding.content


def _key(fault: Fault) -> tuple[str, str]:
    return fault.kind, fault.where


def shrink(content: bytes, shows: Callable[[bytes], bool], trials: int) -> bytes:
    """Leave out blocks, from halves down to bytes, as long as `shows` holds."""
    size = max(len(content) // 2, 1)
    while trials > 0:
        for start in _starts(content, size):
            if trials <= 0:
                break
            trials -= 1
            shorter = content[:start] + content[start + size :]
            if shows(shorter):
                content = shorter
        if size == 1:
            break
        size //= 2
    return content


def _starts(content: bytes, size: int) -> Iterator[int]:
    """Yield where blocks begin, the last one first, so that earlier places stay right."""
    yield from range((len(content) - 1) // size * size, -1, -size)
