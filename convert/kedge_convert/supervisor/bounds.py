"""How much memory and time a conversion may take, and what it takes, by Linux's own accounts.

Counted is what the kernel can't give back by itself: anonymous pages, shared memory, and what was
swapped out. Mapped files (libraries, weights) are left out: they are dropped when memory is short.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kedge_runtime.errors import UsageError
from kedge_runtime.findings import Machine

# A share that leaves room for what other programs will want meanwhile.
MEMORY = "80%"
TIME = "2h"

HERE = Machine()
BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SECONDS = {"s": 1, "m": 60, "h": 3600}
HELD = re.compile(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)
HIGHEST = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Bounds:
    """`memory`: bytes of all of the worker's processes; `seconds`: for one part. None: any."""

    memory: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Limits:
    """What the user allows, in words: a share of the memory is of the machine that does the work.

    Raises UsageError for words that mean nothing.
    """

    memory: str = MEMORY
    time: str = TIME

    def __post_init__(self) -> None:
        """Refuse, before any work."""
        self.here()

    def here(self) -> Bounds:
        """Return what that is on this machine, now."""
        return Bounds(read_memory(self.memory), read_time(self.time))


def read_memory(text: str, machine: Machine = HERE) -> int | None:
    """Return the bytes of `8G`, `500M`, `80%` (of what is free now), or None for `none`.

    G is 10^9. A share is None where nothing tells what is free. Raises UsageError.
    """
    if text == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT%]?)B?", text.strip(), re.IGNORECASE)
    number = float(found[1]) if found else 0.0
    if not found or not number or (found[2] == "%" and number > 100):
        raise UsageError(f"--memory-limit: got {text!r}, allowed are e.g. 8G, 500M, 80%, none")
    if found[2] != "%":
        return int(number * BYTES[found[2].upper()])
    free = free_memory(machine)
    return None if free is None else int(free * number / 100)


def read_time(text: str) -> float | None:
    """Return the seconds of `90s`, `30m`, `2h`, or None for `none`. Raises UsageError."""
    if text == "none":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or not float(found[1]):
        raise UsageError(f"--time-limit: got {text!r}, allowed are e.g. 90s, 30m, 2h, none")
    return float(found[1]) * SECONDS[found[2]]


def free_memory(machine: Machine = HERE) -> int | None:
    """Return the bytes a process may still take: the machine's, or its control group's if fewer."""
    free = [*_available(machine), *_groups(machine)]
    return min(free) if free else None


def _available(machine: Machine) -> Iterator[int]:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", machine.read("proc/meminfo"), re.MULTILINE)
    if found:
        yield int(found[1]) << 10


# Names in the two versions: the limit, what is used, and how much of that are droppable files.
VERSIONS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _groups(machine: Machine) -> Iterator[int]:
    """Yield what every control group around this process has left.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files, and cgroup-v1/memory.
    """
    for line in machine.read("proc/self/cgroup").splitlines():
        _, kind, path = line.split(":", 2)
        if kind not in VERSIONS:
            continue
        # In a container the path may be the host's, while the files lie at the root.
        for group in (Path(path), *Path(path).parents):
            folder = Path("sys/fs/cgroup", kind, *group.parts[1:])
            yield from _left(machine, folder, *VERSIONS[kind])


def _left(machine: Machine, folder: Path, limit: str, usage: str, files: str) -> Iterator[int]:
    most, used = (machine.read(str(folder / name)) for name in (limit, usage))
    if most.isdigit() and used.isdigit():
        found = re.search(rf"^{files} (\d+)", machine.read(str(folder / "memory.stat")), re.M)
        yield max(0, int(most) - int(used) + int(found[1] if found else 0))


def held(pid: int) -> int:
    """Return the bytes that a process and its descendants hold; 0 where /proc doesn't tell."""
    return sum(_kilobytes(one, HELD) for one in family(pid)) << 10


def highest(pid: int) -> dict[int, int]:
    """Return the highest resident memory so far, mapped files included, by process, in bytes."""
    return {one: _kilobytes(one, HIGHEST) << 10 for one in family(pid)}


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    for thread in HERE.find(f"proc/{pid}/task/*/children"):
        for child in HERE.read(str(thread)).split():
            yield from family(int(child))


def _kilobytes(pid: int, pattern: re.Pattern[str]) -> int:
    return sum(map(int, pattern.findall(HERE.read(f"proc/{pid}/status"))))
