"""Feed every door hostile inputs, on all cores: `make fuzz MINUTES=10`.

    python -m fuzz [--minutes 10 | --inputs 10000000] [--seed S] [--door NAME] [--record]
    python -m fuzz --door NAME --input FILE

Each door gets the same time. Ends with a table: door, inputs, inputs a second, findings. Exit code
1 means findings: each is a file under `--out`, and beside it the command that repeats it. The same
seed makes the same inputs. `--record` keeps the figures in benchmarks/results, by machine.
"""

import argparse
import json
import os
import random
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import machine
from fuzz import batches, findings
from fuzz.batches import Batch, Child
from fuzz.doors import DOORS
from fuzz.findings import Finding
from kedge_runtime.progress import Bar

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
# Seconds of a batch: long beside the start of a process, short beside a run.
SLICE = 4.0
# Inputs of a batch; no door is through with them in SLICE.
MOST = 1_000_000


@dataclass
class Run:
    """A run over some doors: inputs and seconds of each, and what was found.

    It is over after `most` inputs, or at `ends` on the monotonic clock.
    """

    names: list[str]
    seed: int
    most: float
    ends: float
    batches: int = 0
    inputs: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    found: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether no further batch is to begin."""
        return self.inputs.total() >= self.most or monotonic() >= self.ends

    def next(self) -> Batch:
        """Return the next batch: the doors take turns, and no number comes twice."""
        name, start = self.names[self.batches % len(self.names)], self.batches * MOST
        self.batches += 1
        seconds = min(SLICE, max(self.ends - monotonic(), 0.1))
        return Batch(name, self.seed, start, MOST, seconds)

    def take(self, child: Child) -> int:
        """Take in what an ended child did; return the number of its inputs."""
        name = child.batch.name
        for number, fault in child.faults():
            key = (name, fault.kind, fault.where)
            if key not in self.found:
                content = DOORS[name].make(name, self.seed, number)
                self.found[key] = Finding(name, fault, content)
        self.inputs[name] += child.tried
        self.seconds[name] += child.took
        return child.tried


def run(over: Run, jobs: int) -> None:
    """Keep `jobs` children at work until the run is over; show a bar."""
    children: list[Child] = []
    is_timed = over.most == float("inf")
    began, total = monotonic(), round(over.ends - monotonic()) if is_timed else int(over.most)
    with Bar(f"fuzz, seed {over.seed}", total) as bar:
        while children or not over.is_over:
            while len(children) < jobs and not over.is_over:
                children.append(Child(over.next()))
            batches.wait(children, 0.5)
            for child in [child for child in children if child.ended]:
                children.remove(child)
                tried = over.take(child)
                bar.advance(round(monotonic() - began) - bar.done if is_timed else tried)


def table(over: Run) -> str:
    """Return a line a door."""
    by_door = Counter(finding.door for finding in over.found.values())
    rows = [f"{'door':16} {'inputs':>10} {'a second':>9} {'findings':>9}"]
    for name in over.names:
        rate = over.inputs[name] / max(over.seconds[name], 1e-9)
        rows.append(f"{name:16} {over.inputs[name]:10} {rate:9.0f} {by_door[name]:9}")
    rows.append(f"{'all':16} {over.inputs.total():10} {'':9} {len(over.found):9}")
    return "\n".join(rows)


def record(over: Run, seconds: float) -> Path:
    """Write the figures under the name of this machine."""
    path = RESULTS / f"fuzz-{machine.slug()}.json"
    doors = {
        name: {"inputs": over.inputs[name], "seconds": round(over.seconds[name], 1)}
        for name in over.names
    }
    figures = {
        "machine": machine.identity(),
        "seed": over.seed,
        "seconds": round(seconds),
        "inputs": over.inputs.total(),
        "doors": doors,
        "findings": sorted(finding.line for finding in over.found.values()),
    }
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return path


def repeat(name: str, path: Path) -> int:
    """Feed one door one file, and say what came of it."""
    fault = batches.alone(name, path.read_bytes())
    print(f"{name}: {fault.kind} {fault.where}\n{fault.said}" if fault else f"{name}: no fault")
    return int(fault is not None)


def main() -> int:
    """Run what the arguments ask for; return 1 where there are findings."""
    arguments = _arguments()
    names = [arguments.door] if arguments.door else list(DOORS)
    if arguments.input:
        return repeat(names[0], arguments.input)
    began = monotonic()
    inf = float("inf")
    ends = began + 60 * arguments.minutes if arguments.inputs is None else inf
    over = Run(names, arguments.seed, arguments.inputs or inf, ends)
    run(over, arguments.jobs)
    seconds = monotonic() - began
    for finding in over.found.values():
        print(f"{finding.line}\n    {findings.write(finding, arguments.out)}")
    print(table(over))
    if arguments.record:
        print(record(over, seconds))
    return int(bool(over.found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--inputs", type=int, help="in all, instead of minutes")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--door", choices=DOORS, help="this one alone")
    parser.add_argument("--input", type=Path, help="feed the door this file")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.input and not arguments.door:
        parser.error("--input needs --door")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
