"""What does kedge cost beside the plain script for the same work? The table of docs/performance.md.

Each row is a piece of work, done by a peer and by kedge in turns, after a turn that does not count.
Its figure is the median over the turns of the ratio kedge / peer of the same turn, with a 95 %
interval (bootstrap over turns, seed 0). So a machine whose speed drifts changes both sides alike.
The load of the machine stands beside the figures. Exit code 1 where an interval lies wholly on the
wrong side of its limit.

- one: one image in one process. CPU seconds, user and system, and peak resident memory are the
  kernel's figures for the process (wait4).
- folder: a folder of photos in one process, with the engine's default threads. The peer loops over
  imread, resize and invoke. Images a second by the clock, and CPU time for each image.
- own: the runtime's steps beside reading, decoding and invoke, at one thread, as a share of invoke.
- conversion: `kedge convert` beside the scripts of `stock_scripts.py`: all targets and both int8
  files, each with the default effort and with `--effort fast`. Seconds by the clock, CPU seconds,
  memory at once.

    python benchmarks/side_by_side.py --artefact FILE.int8.tflite --photos DIR [--large DIR]
        [--model FILE.keras --card NAME]

With --only the other parts keep their last figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import conversion_costs
import machine
from bare_script import BARE, OPEN
from folder_loops import clocked, facts, naive, ours, processes
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.checks.bench import steps
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import cores
from opening import interval

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs" / "performance.md"
START, END = "<!-- written by benchmarks/side_by_side.py -->\n", "<!-- until here -->\n"
# pip compiles what it installs; a checkout is compiled once, unless this forbids it.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
OWN = ("resize", "table", "set", "get", "head")


@dataclass(frozen=True)
class Row:
    """A piece of work: the medians of both sides, and their ratio with its interval.

    `limit`: what the ratio may be at most, or at least where `more` is better; None for no limit.
    """

    work: str
    unit: str
    peer: float
    kedge: float
    ratio: float
    low: float
    high: float
    limit: float | None = None
    more: bool = False

    @classmethod
    def of(cls, work: str, unit: str, turns: Iterable[tuple[float, float]], **limits: Any) -> "Row":
        """Return the row of turns, each the figures of peer and kedge."""
        taken = np.array(list(turns), np.float64)
        ratios = taken[:, 1] / taken[:, 0]
        peer, kedge = (float(side) for side in np.median(taken, axis=0))
        return cls(work, unit, peer, kedge, float(np.median(ratios)), *interval(ratios), **limits)

    @property
    def missed(self) -> bool:
        """Whether the whole interval lies on the wrong side of the limit."""
        if self.limit is None:
            return False
        return self.high < self.limit if self.more else self.low > self.limit

    def line(self) -> str:
        """Return the row of a Markdown table."""
        sign = "at least" if self.more else "at most"
        limit = "" if self.limit is None else f"{sign} {self.limit:g}"
        sides = " | ".join(f"{value:.3g} {self.unit}" for value in (self.peer, self.kedge))
        spread = f"{self.low:.2f} to {self.high:.2f}"
        return f"| {self.work} | {sides} | {self.ratio:.2f} | {spread} | {limit} |"


@dataclass(frozen=True)
class Request:
    """What to measure: the artefact, folders of photos, and the number of turns."""

    artefact: Path
    photos: Path
    large: Path | None
    turns: int
    model: Path | None = None
    card: str = ""

    @property
    def conversions(self) -> int:
        """The number of turns of conversions: they take minutes."""
        return max(1, self.turns // 7)

    def images(self, folder: Path, count: int) -> list[Path]:
        """Return the first images of a folder."""
        return sorted(path for path in folder.iterdir() if path.is_file())[:count]


def one(request: Request) -> Iterator[Row]:
    """Yield the rows of one image in one process."""
    with tempfile.TemporaryDirectory() as folder:
        peer, *ours = _commands(request, Path(folder)).values()
        turns = [[run(command) for command in (peer, *ours)] for _ in range(request.turns + 1)][1:]
    limits = {"`Classifier.open`": 1.12, "`kedge classify`": 1.2}
    for column, (name, limit) in enumerate(limits.items(), 1):
        for what, unit, most in (("CPU", "s", limit), ("memory", "MB", 1.1)):
            index = 0 if what == "CPU" else 1
            pairs = [(turn[0][index], turn[column][index]) for turn in turns]
            yield Row.of(f"one image, {name}: {what}", unit, pairs, limit=most)


def _commands(request: Request, folder: Path) -> dict[str, list[str]]:
    contract = read_artefact(request.artefact).contract
    labels = folder / "labels.txt"
    labels.write_text("".join(label.name + "\n" for label in contract.labels), encoding="utf-8")
    model, image = str(request.artefact), str(request.images(request.photos, 1)[0])
    kedge = [sys.executable, "-m", "kedge_runtime.cli", "classify"]
    return {
        "bare script": [
            *(sys.executable, "-c", BARE, model, str(labels), image),
            *map(str, facts(contract)),
        ],
        "Classifier.open": [sys.executable, "-c", OPEN, model, image],
        "kedge classify": [*kedge, model, image, "--threads", "1", "--top", "1"],
    }


# A process counts the memory of the one that starts it, until it runs a program of its own. So a
# small one starts it.
START_AND_WAIT = """
import os, sys
nowhere = os.open(os.devnull, os.O_WRONLY)
actions = [(os.POSIX_SPAWN_DUP2, nowhere, 1), (os.POSIX_SPAWN_DUP2, nowhere, 2)]
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
_, status, usage = os.wait4(child, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(command: list[str]) -> tuple[float, float]:
    """Run a process to its end; return its CPU seconds and its peak resident megabytes."""
    launched = [sys.executable, "-I", "-S", "-c", START_AND_WAIT, *command]
    done = subprocess.run(launched, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    cpu, memory = map(float, done.stdout.split())
    return cpu, memory


def folder(request: Request) -> Iterator[Row]:
    """Yield the rows of folders."""
    folders = {"photos of 500x375": (request.photos, 120, 1.6)}
    if request.large:
        folders["photos of 12 megapixels"] = (request.large, 12, 2.0)
    for name, (place, count, limit) in folders.items():
        images = request.images(place, count)
        with processes(request.artefact) as apart:
            ways = naive(request.artefact), ours(request.artefact), apart
            turns = [[clocked(way, images) for way in ways] for _ in range(request.turns // 3 + 2)]
            del turns[0]
        rates = [(peer[0], kedge[0]) for peer, kedge, _ in turns]
        yield Row.of(f"{name}: images a second", "/s", rates, limit=limit, more=True)
        costs = [(peer[1], kedge[1]) for peer, kedge, _ in turns]
        yield Row.of(f"{name}: CPU for each", "ms", costs)
        # Nothing that they share holds them up, so this is what the cores allow.
        bound = [(peer[0], apart[0]) for peer, _, apart in turns]
        yield Row.of(f"{name}: what {cores()} plain processes give", "/s", bound)


def own(request: Request) -> Iterator[Row]:
    """Yield the row of the runtime's own work; the peer is the engine's invoke."""
    classifier = Classifier.open(request.artefact, threads=1)
    turns = []
    for path in request.images(request.photos, 60):
        value: Any = path
        taken = {}
        for name, step in steps(classifier).items():
            began = perf_counter()
            value = step(value)
            taken[name] = 1e3 * (perf_counter() - began)
        turns.append((taken["invoke"], sum(taken[name] for name in OWN)))
    yield Row.of("own work of an image beside invoke, one thread", "ms", turns[5:], limit=0.25)


def conversion(request: Request) -> Iterator[Row]:
    """Yield the rows of conversions; a turn takes minutes, so there are few."""
    if request.model is None:
        return
    model = conversion_costs.ConvertedModel(request.model, request.card, request.photos)
    turns = [conversion_costs.turn(model) for _ in range(request.conversions)]
    for way, pairs_of_way in zip(conversion_costs.WAYS, zip(*turns, strict=True), strict=True):
        for what, unit in (("time", "s"), ("cpu", "s"), ("memory", "MB")):
            pairs = [(getattr(peer, what), getattr(kedge, what)) for peer, kedge in pairs_of_way]
            limit = way.limit if what == "time" else None
            yield Row.of(f"{way.name}: {what}", unit, pairs, limit=limit)


MEASURES: dict[str, Callable[[Request], Iterator[Row]]] = {
    "one": one,
    "folder": folder,
    "own": own,
    "conversion": conversion,
}


def main() -> int:
    request, names = _arguments()
    path = RESULTS / f"side-by-side-{machine.slug()}.json"
    parts = json.loads(path.read_text("utf-8"))["parts"] if path.exists() else {}
    for name in names:
        before, rows = os.getloadavg()[0], list(MEASURES[name](request))
        parts[name] = {
            "artefact": request.artefact.name,
            "turns": request.conversions if name == "conversion" else request.turns,
            "load": [round(load, 1) for load in (before, os.getloadavg()[0])],
            "real_time": os.sched_getscheduler(0) != os.SCHED_OTHER,
            "rows": [asdict(row) for row in rows],
        }
    report = {"machine": machine.identity(), "parts": parts}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    text, page = table(report), PAGE.read_text("utf-8")
    page = page.split(START)[0] + START + text + END + page.split(END)[1]
    PAGE.write_text(page, encoding="utf-8")
    print(text)
    return int(any(Row(**row).missed for name in names for row in parts[name]["rows"]))


def table(report: dict[str, Any]) -> str:
    """Return the table in Markdown, with the machine and its load."""
    identity = report["machine"]
    lines = [f"{identity['processor']}, {identity['cores']} cores.", ""]
    lines += [
        f"- {name}: {part['artefact']}, {part['turns']} turns, load "
        f"{' to '.join(map(str, part['load']))}"
        f"{', with real-time priority' if part['real_time'] else ''}"
        for name, part in report["parts"].items()
    ]
    lines += [
        "",
        "| work | peer | kedge | ratio | 95 % interval | limit |",
        "| --- | --: | --: | --: | --: | --- |",
    ]
    rows = [Row(**row) for part in report["parts"].values() for row in part["rows"]]
    return "\n".join(["", *lines, *(row.line() for row in rows), "", ""])


def _arguments() -> tuple[Request, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True, help="a sealed int8 classifier")
    parser.add_argument("--photos", type=Path, required=True, help="photos of about 500x375")
    parser.add_argument("--large", type=Path, help="photos of about 12 megapixels")
    parser.add_argument("--model", type=Path, help="the Keras model to convert")
    parser.add_argument("--card", default="MobileNetV2", help="its card")
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    options = vars(parser.parse_args())
    names = options.pop("only")
    return Request(**options), names


if __name__ == "__main__":
    sys.exit(main())
