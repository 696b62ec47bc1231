"""Does a classifier that runs for long stay as it was: answers, memory, open files?

One process, one `Classifier`, 8 threads, 20 000 classifications of image files, while the artefact
on disk is replaced: by a rename, by a copy over it, by other weights. Every answer is held against
the first one for its image, byte for byte. Resident memory and open descriptors are read after the
first tenth and at the end.

    python benchmarks/endurance.py --artefact FILE --images DIR

Exit code 1 for a wrong answer, memory that grew by more than 2 %, or one more descriptor.
"""

import argparse
import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import machine
from kedge_runtime import Classifier

RESULTS = Path(__file__).parent / "results"
THREADS, IMAGES = 8, 32
MOST_GROWTH = 1.02


@dataclass(frozen=True)
class Held:
    """What the process holds: resident bytes, and open descriptors."""

    memory: int
    descriptors: int

    @classmethod
    def now(cls) -> "Held":
        """Read the kernel's figures for this process."""
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return cls(int(found[1]) << 10, len(list(Path("/proc/self/fd").iterdir())))


@dataclass(frozen=True)
class Endurance:
    """What a run found; `replaced`: how often the file on disk was."""

    artefact: str
    classifications: int
    threads: int
    replaced: int
    wrong: int
    early: Held
    late: Held

    @property
    def passed(self) -> bool:
        """Whether nothing changed."""
        grown = self.late.memory / self.early.memory
        flat = grown <= MOST_GROWTH and self.late.descriptors <= self.early.descriptors
        return not self.wrong and flat


def cycled(contents: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each content with both ways to replace a file by it, without end."""
    for content in itertools.cycle(contents):
        yield content, True
        yield content, False


@contextmanager
def replacing(path: Path, contents: list[bytes]) -> Iterator[list[int]]:
    """Replace a file again and again while the block runs; yield the list of the turns."""
    over, turns = threading.Event(), [0]

    def work() -> None:
        for content, renamed in cycled(contents):
            if over.wait(0.02):
                return
            beside = path.with_name("beside")
            beside.write_bytes(content)
            beside.replace(path) if renamed else path.write_bytes(content)
            turns[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield turns
    finally:
        over.set()
        thread.join()


def shares(first: int, end: int) -> list[range]:
    """Return the turns of each thread: a task for each turn would be the memory that grows."""
    return [range(first + i, end, THREADS) for i in range(THREADS)]


def measure(artefact: Path, images: list[Path], count: int) -> Endurance:
    with TemporaryDirectory(prefix="kedge-endurance-") as folder:
        path = Path(folder) / artefact.name
        sealed = artefact.read_bytes()
        path.write_bytes(sealed)
        classifier = Classifier.open(path, threads=1)
        expected = [classifier.probabilities(image).tobytes() for image in images]

        def is_wrong(turn: int) -> bool:
            which = turn % len(images)
            return classifier.probabilities(images[which]).tobytes() != expected[which]

        def share(turns: range) -> int:
            return sum(map(is_wrong, turns))

        first = count // 10
        others = [sealed[::-1], sealed[: len(sealed) // 2], sealed]
        with replacing(path, others) as turns, ThreadPoolExecutor(THREADS) as pool:
            wrong = sum(pool.map(share, shares(0, first)))
            early = Held.now()
            wrong += sum(pool.map(share, shares(first, count)))
            late = Held.now()
    return Endurance(artefact.name, count, THREADS, turns[0], wrong, early, late)


def spread(folder: Path) -> list[Path]:
    """Return images of a folder, evenly spread over its names."""
    paths = sorted(folder.iterdir())
    return [paths[i] for i in np.linspace(0, len(paths) - 1, IMAGES).astype(int)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, action="append", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    options = parser.parse_args()
    images = spread(options.images)
    found = [measure(artefact, images, options.count) for artefact in options.artefact]
    rows = [{**asdict(each), "passed": each.passed} for each in found]
    print(json.dumps(rows, indent=2))
    report = {"machine": machine.identity(), "rows": rows}
    path = RESULTS / f"endurance-{machine.slug()}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(not all(each.passed for each in found))


if __name__ == "__main__":
    sys.exit(main())
