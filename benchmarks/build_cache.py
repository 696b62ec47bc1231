"""Can the cache of `kedge build` be trusted, and what does it save? On the demo, three questions.

What share of a cold build of twelve cells does an unchanged rerun take? Do two clean builds give
the same bytes? Does a build that is killed (SIGKILL) at random moments leave a wrong file under
its name, in the cache or among the artefacts, and does the next one end well?

    python benchmarks/build_cache.py [--kills 20] [--seed 0]
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import machine
from kedge_models.demo import pictograms

RESULTS = Path(__file__).parent / "results"
MOST = 0.05  # of the cold build's time
CONFIG = """
[defaults]
images = "photos"
calibrate = "photos"
targets = ["tflite:float32", "tflite:float16", "tflite:dynamic", "onnx:float32", "onnx:float16",
  "onnx:int8"]

[options]
effort = "fast"
calibrate_count = 20
check_count = 20
seed = [0, 1]

[[model]]
name = "demo"
"""
CELLS = 12


@dataclass(frozen=True)
class Took:
    """Seconds of a build: on the clock, and of the processors."""

    seconds: float
    cpu: float


def main() -> int:
    arguments = _arguments()
    with TemporaryDirectory(prefix="kedge-build-") as folder:
        report = measured(Path(folder), arguments.kills, random.Random(arguments.seed))
    name = f"build-cache-{machine.slug()}"
    whole = {"machine": machine.identity(), **report}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")
    text = _markdown(report)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
    right = report["ratio"] <= MOST and report["same_bytes"] and not report["wrong"]
    return int(not right)


def measured(folder: Path, kills: int, moments: random.Random) -> dict[str, object]:
    """Return the figures of all three questions."""
    cold = build(desk(folder / "first"))
    again = build(folder / "first")
    build(desk(folder / "second"))
    digests = [sealed(folder / place) for place in ("first", "second")]
    assert len(digests[0]) == CELLS
    times = [moments.uniform(0, 0.8 * cold.seconds) for _ in range(kills)]
    wrong = killed(desk(folder / "killed"), digests[0], times)
    build(folder / "killed")
    return {
        "cells": CELLS,
        "cold": asdict(cold),
        "again": asdict(again),
        "ratio": again.seconds / cold.seconds,
        "same_bytes": digests[0] == digests[1],
        "kills": kills,
        "wrong": wrong,
        "same_after_kills": sealed(folder / "killed") == digests[0],
    }


def desk(folder: Path) -> Path:
    """Make a folder with a `kedge.toml` and images."""
    (folder / "photos").mkdir(parents=True)
    pictograms.write(folder / "photos", 60, seed=3)
    (folder / "kedge.toml").write_text(CONFIG)
    return folder


def command(folder: Path) -> list[str]:
    words = ["build", str(folder / "kedge.toml"), "--cache", str(folder / "cache")]
    return [sys.executable, "-m", "kedge_runtime.cli", *words]


def build(folder: Path) -> Took:
    """Build to the end, whatever the verdict."""
    began, used = perf_counter(), _used()
    ran = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1, 3):
        raise SystemExit(ran.stderr)
    return Took(perf_counter() - began, _used() - used)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def killed(folder: Path, right: dict[str, str], moments: Sequence[float]) -> list[str]:
    """Kill a build at each moment, in seconds; return every file that isn't what its name says.

    Each goes on with what the one before left; one that ends too early is begun from nothing.
    """
    wrong = []
    for moment in moments:
        while not kill(folder, moment):
            shutil.rmtree(folder / "cache")
        wrong += faults(folder, right)
    return wrong


def kill(folder: Path, moment: float) -> bool:
    """Begin a build and kill it; return whether it was still at work."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command(folder), **quiet) as running:
        try:
            running.wait(moment)
        except subprocess.TimeoutExpired:
            os.kill(running.pid, signal.SIGKILL)
            return True
    return False


def faults(folder: Path, right: dict[str, str]) -> list[str]:
    """Return blobs that don't match their names, and artefacts that aren't the right ones."""
    blobs = folder.glob("cache/blobs/[!.]*")
    wrong = [blob.name for blob in blobs if _sha256(blob) != blob.name]
    return wrong + [name for name, found in sealed(folder).items() if right.get(name) != found]


def sealed(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every artefact, rejected ones too, by name."""
    return {path.name: _sha256(path) for path in sorted(folder.glob("out/demo*"))}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _markdown(report: dict[str, object]) -> str:
    cold, again = Took(**report["cold"]), Took(**report["again"])  # type: ignore[arg-type]
    return (
        f"| {report['cells']} cells of the demo | seconds | CPU seconds |\n| --- | --: | --: |\n"
        f"| cold | {cold.seconds:.1f} | {cold.cpu:.1f} |\n"
        f"| unchanged rerun | {again.seconds:.1f} | {again.cpu:.1f} |\n\n"
        f"The rerun takes {report['ratio']:.1%} of the time. Two clean builds gave the same bytes: "
        f"{'yes' if report['same_bytes'] else 'no'}. After {report['kills']} kills at random "
        f"moments {len(report['wrong'])} files were wrong; "  # type: ignore[arg-type]
        f"the next build gave the same bytes: {'yes' if report['same_after_kills'] else 'no'}.\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
