"""Records of a check of calibration images."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# A problem makes the exit code 1; a note is for a person; `open` could not be checked.
Status = Literal["ok", "note", "problem", "open"]


@dataclass(frozen=True)
class CalibrationFinding:
    """What one check of the images says.

    `check`: its name in the table. `result`: in words. `remedy`: what to do, empty where nothing
    is. `images`: the images that it is about, all of them.
    """

    check: str
    status: Status
    result: str
    remedy: str = ""
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class CalibrationReport:
    """The findings on a folder. `images`: found in it; `usable`: neither unreadable, blank nor
    copies; `drawn`: the ones that a conversion would calibrate with, on which the model ran.
    """

    folder: Path
    images: int
    usable: int
    drawn: int
    findings: tuple[CalibrationFinding, ...]

    @property
    def has_problem(self) -> bool:
        """Whether any finding is a problem."""
        return any(each.status == "problem" for each in self.findings)


def named(images: Iterable[Path], most: int = 3) -> str:
    """Return e.g. `a.jpg, b.jpg, c.jpg and 4 more`."""
    names = [path.name for path in images]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
