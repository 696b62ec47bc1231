"""The fixed corpus: few inputs of every door, the same on every machine, for the normal tests.

    python -m fuzz.corpus [HOSTILE]

Prints a JSON list of faults: door, input, and what is wrong. HOSTILE: a folder of known files. A
process of its own, as trials fork, and a process that ran other tests has OpenCV's threads.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz import batches
from fuzz.batches import Batch, Child
from fuzz.doors import DOORS
from fuzz.trial import Fault

SEED, INPUTS = 14, 300
# What broke a door once: the name begins with the door's, a hyphen for a space.
FOUND = Path(__file__).parent / "found"
# Known hostile files, by the beginning of their names, and the door of each.
HOSTILE = {
    "contract": "contract",
    "image": "image",
    "journal": "journal",
    "lock": "kedge.lock.toml",
    "metadata": "metadata",
    "toml": "kedge.toml",
}


@dataclass(frozen=True)
class Failure:
    """A fault at a door; `source`: made, good, found or hostile, and which of them."""

    door: str
    source: str
    fault: str


def made(name: str) -> Iterator[Failure]:
    """Yield what inputs made from the seed show."""
    for number, fault in faults(name, INPUTS):
        yield Failure(name, f"made {number}", _line(fault))


def faults(name: str, inputs: int) -> list[tuple[int, Fault]]:
    """Return what a child finds at a door with so many inputs."""
    child = Child(Batch(name, SEED, 0, inputs, seconds=60.0))
    while not child.ended:
        batches.wait([child], 1.0)
    return list(child.faults())


def good(name: str) -> Iterator[Failure]:
    """Yield the good inputs that are refused: only what gets past the first check is a trial."""
    for number, content in enumerate(DOORS[name].seeds()):
        try:
            DOORS[name].call(content)
        except Exception as error:
            yield Failure(name, f"good {number}", repr(error))


def stored(name: str, folder: Path, start: str, source: str) -> Iterator[Failure]:
    """Yield what the files of a folder show whose names begin with `start`."""
    for path in sorted(folder.glob(f"{start}-*")):
        if fault := batches.alone(name, path.read_bytes()):
            yield Failure(name, f"{source} {path.name}", _line(fault))


def _line(fault: Fault) -> str:
    return f"{fault.kind} {fault.where}"


def failures(hostile: Path | None) -> Iterator[Failure]:
    """Yield every fault of the whole corpus."""
    for name in DOORS:
        yield from made(name)
        yield from stored(name, FOUND, name.replace(" ", "-"), "found")
    for start, name in HOSTILE.items():
        if hostile:
            yield from stored(name, hostile, start, "hostile")
    for name in DOORS:
        yield from good(name)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    sys.stdout.write(json.dumps([vars(failure) for failure in failures(folder)]))
