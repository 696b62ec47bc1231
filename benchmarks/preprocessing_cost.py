"""What does everything cost that the runtime does beside decode and invoke?

Photos are classified step by step as `kedge bench` does, with cv2.imdecode clocked inside the step
that decodes. What is left beside it and beside the invoke is the runtime's: `check` (header and
colour order), resize, table, set, get, head; reading the file is the system's. Given as shares of
one invoke, at one thread and at all cores, medians over the photos after a warm-up. Exit code 1
when they come to more than the limit.

    python benchmarks/preprocessing_cost.py --artefact FILE.int8.tflite --images DIR
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import machine
from kedge_runtime.checks import bench

RESULTS = Path(__file__).parent / "results"
WARM_UP = 20
MAX_SHARE = 0.06

PARTS = ("check", "resize", "table", "set", "get", "head")


def main() -> int:
    arguments = _arguments()
    photos = sorted(p for p in arguments.images.rglob("*") if p.is_file())[: arguments.limit]
    counts = sorted({1, os.cpu_count() or 1})
    rows = {str(count): measure(arguments.artefact, photos, count) for count in counts}
    report = {
        "machine": machine.identity(),
        "artefact": arguments.artefact.name,
        "photos": len(photos),
        "limit": MAX_SHARE,
        "threads": rows,
    }
    _write(report)
    return int(any(row["share"] > MAX_SHARE for row in rows.values()))


def measure(artefact: Path, photos: list[Path], threads: int) -> dict[str, Any]:
    """Return medians in microseconds, and the rest and its parts as shares of the invoke."""
    cv2.setNumThreads(threads)
    decoded: list[float] = []
    plain = cv2.imdecode
    try:
        cv2.imdecode = _clocked(decoded, plain)
        timing = bench.measure(
            bench.BenchCase(artefact, threads=threads),
            bench.Plan(tuple(photos), len(photos), WARM_UP),
        )
    finally:
        cv2.imdecode = plain
    stages = dict(timing.stages)
    # Each round decodes twice, once step by step: last in the even rounds, first in the odd ones.
    turns = np.arange(WARM_UP, WARM_UP + len(photos))
    imdecode = np.array(decoded)[2 * turns + 1 - turns % 2]
    stages["check"] = stages.pop("decode") - imdecode
    parts = {name: stages[name] for name in PARTS}
    invoke = float(np.median(stages["invoke"]))
    rest = float(np.median(sum(parts.values())))
    shares = {name: round(float(np.median(part)) / invoke, 4) for name, part in parts.items()}
    return {
        "imdecode_us": round(float(np.median(imdecode)) * 1e6, 1),
        "invoke_us": round(invoke * 1e6, 1),
        "rest_us": round(rest * 1e6, 1),
        "share": round(rest / invoke, 4),
        **shares,
    }


def _clocked(seconds: list[float], function: Callable[..., Any]) -> Any:
    def run(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
        return result

    return run


def _write(report: dict[str, Any]) -> None:
    name = f"preprocessing-cost-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    columns = list(next(iter(report["threads"].values())))
    lines = [
        f"# What the runtime costs beside decode and invoke, {report['artefact']}",
        "",
        f"{report['machine']['processor']}, {report['photos']} photos, medians. Share is the "
        f"rest over the invoke, limit {report['limit']}; then its parts.",
        "",
        f"| threads | {' | '.join(columns)} |",
        f"| --: {'| --: ' * len(columns)}|",
    ]
    for threads, row in report["threads"].items():
        lines.append(f"| {threads} | {' | '.join(str(row[column]) for column in columns)} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True, help="a sealed int8 classifier")
    parser.add_argument("--images", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--limit", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
