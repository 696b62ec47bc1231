"""One input through one door under bounds: of memory, of time, and of what may be raised."""

import os
import re
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn

from fuzz.doors import Door

HANG = 2.0  # seconds of CPU time
# For what Python and its libraries take besides, whatever the input.
SLACK = 64 << 20
# Beyond the bound: C code that isn't given memory may say "damaged", so it is given, and seen.
GIVEN = 4 << 30
Kind = Literal["traceback", "hang", "memory", "crash"]
# OpenCV tells in its own words that an allocation failed, which becomes an ImageError.
_NO_MEMORY = re.compile(r"insufficient memory|failed to allocate|out of memory", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """What is wrong with an outcome. `where`: the kind of error and its place; `said`: all of it.

    Faults of one kind and place are one finding.
    """

    kind: Kind
    where: str
    said: str = ""


class Hang(BaseException):
    """An input took more than HANG seconds; no door catches it."""


@dataclass(frozen=True)
class Bounds:
    """What this process may hold resident, in bytes, while it reads inputs of one door."""

    resident: int


@contextmanager
def bounded(door: Door) -> Iterator[Bounds]:
    """Bound this process for good, by what it takes now and four times the door's limit."""
    room = 4 * door.limit + SLACK
    space, resident = (int(n) * resource.getpagesize() for n in _statm()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (space + room + GIVEN, resource.RLIM_INFINITY))
    # A crash is what is looked for; its image on the disk isn't.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _hang)
    with _silence():
        yield Bounds(max(resident, _peak()) + room)


def _statm() -> list[str]:
    return Path("/proc/self/statm").read_text(encoding="ascii").split()


@contextmanager
def _silence() -> Iterator[None]:
    """Send what decoders write to stderr nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _hang(_: int, __: FrameType | None) -> NoReturn:
    raise Hang


def attempt(door: Door, content: bytes, bounds: Bounds) -> Fault | None:
    """Feed a door; return what is wrong with the outcome, or None."""
    fault = _outcome(door, content)
    if fault is None and (peak := _peak()) > bounds.resident:
        return Fault("memory", "resident", f"{peak >> 20} MiB resident")
    return fault


def _outcome(door: Door, content: bytes) -> Fault | None:
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        door.call(content)
    except door.allowed as error:
        said = str(error)
        return Fault("memory", _place(error), said) if _NO_MEMORY.search(said) else None
    except MemoryError as error:
        return Fault("memory", _place(error), _said(error))
    except Hang as error:
        return Fault("hang", _place(error), _said(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Fault("traceback", _place(error), _said(error))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def _place(error: BaseException) -> str:
    """Return the error's type, and the last line of ours that it came through."""
    # Without this file's: the last one of a hang is its own signal handler.
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__
    ]
    ours = [frame for frame in frames if "/kedge_" in frame.filename]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}"


def _said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-12))[-4000:]
