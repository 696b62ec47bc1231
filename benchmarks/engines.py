"""What do engines, kernels, threads, batches and a first run cost?

Takes sealed files of one model and times one image on each engine that runs it. All are timed in
turns within this process, so that what disturbs the machine disturbs all of them; the figures are
medians, in units of one int8 image on LiteRT with all cores.

    python benchmarks/engines.py --folder DIR        (DIR as `kedge convert` filled it)
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import machine
from kedge_runtime.artefact.content import read_content
from kedge_runtime.engines.base import Engine
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.output import quiet

RESULTS = Path(__file__).parent / "results"
BATCH = 8
PAUSE = 0.05  # seconds
ALL = EngineOptions()


@dataclass(frozen=True)
class Case:
    """One way to run one file of the folder; `batch` images at a time."""

    target: str
    options: EngineOptions = ALL
    batch: int = 1

    def __str__(self) -> str:
        """Return the row's heading."""
        asked = {k: v for k, v in vars(self.options).items() if v not in (None, "default")}
        words = [f"{key} {value}" for key, value in asked.items()]
        return ", ".join([self.target, *words, *([f"batch {self.batch}"] * (self.batch > 1))])


UNIT = Case("int8.tflite")
CASES = [
    UNIT,
    Case("int8.tflite", EngineOptions(threads=1)),
    Case("int8.tflite", batch=BATCH),
    Case("int8.tflite", EngineOptions(kernels="builtin")),
    Case("int8.tflite", EngineOptions(kernels="reference")),
    Case("float32.tflite"),
    Case("float32.tflite", batch=BATCH),
    Case("int8.onnx"),
    Case("float32.onnx"),
    Case("float32.onnx", EngineOptions(engine="opencv")),
]


def main() -> None:
    arguments = _arguments()
    with quiet():
        overhead = _overhead(arguments.folder, arguments.rounds)
        timings = {case: _prepare(arguments.folder, case) for case in CASES}
        first = {case: _timed(call) for case, call in timings.items()}
        later = _rounds(timings, arguments.rounds)
    rows = [_row(case, first[case], later) for case in CASES]
    report = {"machine": machine.identity(), "rounds": arguments.rounds, **overhead, "rows": rows}
    name = f"engines-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = _markdown(report)
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _prepare(folder: Path, case: Case) -> Callable[[], Any]:
    engine, tensors = _open(folder, case)
    verb = engine.run if case.batch == 1 else engine.run_many
    return lambda: verb(tensors)


def _open(folder: Path, case: Case) -> tuple[Engine, Any]:
    (path,) = folder.glob(f"*.{case.target}")
    engine = open_engine(read_content(path), case.options)
    shape = (case.batch, *engine.input_shape[1:])
    noise = np.random.default_rng(0).integers(-100, 100, shape)
    return engine, noise.astype(engine.input.dtype)


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _rounds(calls: dict[Case, Callable[[], Any]], rounds: int) -> dict[Case, float]:
    """Return each case's median seconds per image, after an untimed run in every turn.

    The pause ends what onnxruntime's threads do after a run: they spin, at the next one's cost.
    """
    times: dict[Case, list[float]] = {case: [] for case in calls}
    for _ in range(rounds):
        for case, call in calls.items():
            time.sleep(PAUSE)
            call()
            times[case].append(_timed(call) / case.batch)
    return {case: statistics.median(found) for case, found in times.items()}


def _overhead(folder: Path, rounds: int) -> dict[str, float]:
    """Return what the lock and the check of a tensor take of one run."""
    engine, tensors = _open(folder, UNIT)
    run = statistics.median(_timed(lambda: engine.run(tensors)) for _ in range(rounds + 2))
    count = 10_000

    def checks() -> None:
        for _ in range(count):
            engine._check(tensors, engine.input_shape)
            with engine._lock:
                pass

    each = statistics.median(_timed(checks) for _ in range(7)) / count
    return {"lock_and_check_us": round(each * 1e6, 3), "lock_and_check_share": round(each / run, 6)}


def _row(case: Case, first: float, later: dict[Case, float]) -> dict[str, Any]:
    mine = later[case]
    return {
        "case": str(case),
        "milliseconds": round(mine * 1e3, 2),
        "ratio": round(mine / later[UNIT], 3),
        "first_run": round(first / case.batch / mine, 2),
    }


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        "# Engines",
        "",
        f"{report['machine']['processor']}, {report['machine']['cores']} cores, medians of "
        f"{report['rounds']} rounds, per image. The lock and the check of a tensor take "
        f"{report['lock_and_check_us']} µs, {report['lock_and_check_share']:.3%} of a run.",
        "",
        "| case | ms | ratio | first run / later ones |",
        "| --- | --: | --: | --: |",
    ]
    lines += [
        f"| {row['case']} | {row['milliseconds']} | {row['ratio']} | {row['first_run']} |"
        for row in report["rows"]
    ]
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    main()
