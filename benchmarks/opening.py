"""What does opening a sealed file and classifying one image cost, before and after a change?

Two checkouts of kedge, in turns, each run a process of its own: `Classifier.open(file)(image)`.
CPU seconds (user and system) and peak resident memory are the kernel's figures for the process
(wait4). The figure is the median over the turns of the ratio to the other checkout's run of the
same turn, with a 95 % interval (bootstrap over turns, seed 0). Exit code 1 if an interval lies
wholly above 1.

    git worktree add ../before COMMIT
    python benchmarks/opening.py --before ../before --artefact FILE --image PHOTO.jpg
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import machine

RESULTS = Path(__file__).parent / "results"
WARM_UP = 2
RESAMPLES = 10_000
SCRIPT = """
import sys
from kedge_runtime import Classifier
print(Classifier.open(sys.argv[1], threads=1)(sys.argv[2]).best.name)
"""


class Run(NamedTuple):
    """What a process took: CPU seconds, and its peak resident memory in bytes."""

    cpu: float
    memory: float


class Figure(NamedTuple):
    """Medians of both checkouts, and the median ratio with its 95 % interval."""

    before: float
    after: float
    ratio: float
    low: float
    high: float


def run(checkout: Path, artefact: Path, image: Path) -> Run:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(checkout / "runtime")
    command = [sys.executable, "-c", SCRIPT, str(artefact), str(image)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{checkout}: the run ended with {process.returncode}")
    return Run(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0)


def interval(ratios: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the median of ratios, [n]."""
    drawn = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)


def measure(artefact: Path, options: argparse.Namespace) -> dict[str, Figure]:
    checkouts = (Path(options.before).resolve(), Path(__file__).resolve().parents[1])
    turns = [
        [run(checkout, artefact, options.image) for checkout in checkouts]
        for _ in range(WARM_UP + options.turns)
    ][WARM_UP:]
    taken = np.array(turns)  # [turns, before and after, CPU and memory]
    return {name: _figure(taken[:, :, i]) for i, name in enumerate(Run._fields)}


def _figure(taken: NDArray[np.float64]) -> Figure:
    ratios = taken[:, 1] / taken[:, 0]
    before, after = np.median(taken, axis=0)
    return Figure(float(before), float(after), float(np.median(ratios)), *interval(ratios))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", required=True, help="another checkout of kedge")
    parser.add_argument("--artefact", type=Path, action="append", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()
    rows = {artefact.name: measure(artefact, options) for artefact in options.artefact}
    for name, row in rows.items():
        for what, figure in row.items():
            print(f"{name}: {what} {figure.ratio:.3f} ({figure.low:.3f} to {figure.high:.3f})")
    plain = {name: {k: v._asdict() for k, v in row.items()} for name, row in rows.items()}
    found = {"machine": machine.identity(), "turns": options.turns, "rows": plain}
    path = RESULTS / f"opening-{machine.slug()}.json"
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(any(figure.low > 1 for row in rows.values() for figure in row.values()))


if __name__ == "__main__":
    sys.exit(main())
