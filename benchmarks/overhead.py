"""What does kedge cost on top of a bare script that classifies one image and ends?

Three ways to answer for one photo, each a process of its own, in turns: a script that imports cv2
and LiteRT and does by hand what the contract says; `Classifier.open` in Python; `kedge classify`.
User and system CPU time and peak resident memory are the kernel's figures for the process (wait4).
The figure is the median over the runs of the ratio to the bare script of the same turn. Exit code 1
above the limit for `Classifier.open`.

    python benchmarks/overhead.py --artefact FILE.int8.tflite --image PHOTO.jpg
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import machine
from kedge_runtime.artefact.file import read_artefact

RESULTS = Path(__file__).parent / "results"
MAX_RATIO = 1.15
WARM_UP = 2
# pip compiles what it installs; a checkout is compiled once, unless this forbids it.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

# What a person writes who knows the model: short side to 256, centre crop, int8 in and out.
BARE = """
import sys
import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

model, labels, image, size, covered, divisor, mean, scale, zero = sys.argv[1:]
size, covered = int(size), int(covered)
byte = (np.arange(256, dtype=np.float32) / float(divisor) - float(mean)) / float(scale)
table = np.clip(np.rint(byte) + int(zero), -128, 127).astype(np.int8)
interpreter = Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
with open(image, "rb") as file:
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
height, width = pixels.shape[:2]
by = covered / min(height, width)
pixels = cv2.resize(
    pixels, (round(width * by), round(height * by)), interpolation=cv2.INTER_LINEAR_EXACT
)
top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
tensor = cv2.LUT(np.ascontiguousarray(pixels[top : top + size, left : left + size]), table)
interpreter.set_tensor(taken["index"], tensor[None])
interpreter.invoke()
best = int(interpreter.get_tensor(given["index"])[0].argmax())
with open(labels, encoding="utf-8") as file:
    print(file.read().splitlines()[best])
"""

PYTHON = """
import sys
from kedge_runtime import Classifier

print(Classifier.open(sys.argv[1], threads=1)(sys.argv[2]).best.name)
"""


class Cost(NamedTuple):
    """One process: CPU seconds, user and system, and peak resident bytes."""

    cpu: float
    peak: int


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(arguments, Path(folder))
        said = {name: _answer(command) for name, command in commands.items()}
        turns = [
            {name: run(command) for name, command in commands.items()}
            for _ in range(WARM_UP + arguments.runs)
        ][WARM_UP:]
    assert len(set(said.values())) == 1, said
    rows = {name: _row(name, turns) for name in commands}
    report = {
        "machine": machine.identity(),
        "artefact": arguments.artefact.name,
        "runs": arguments.runs,
        "limit": MAX_RATIO,
        "ways": rows,
    }
    _write(report)
    held = rows["Classifier.open"]
    return int(max(held["cpu_ratio"], held["peak_ratio"]) > MAX_RATIO)


def _commands(arguments: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    contract = read_artefact(arguments.artefact).contract
    labels = folder / "labels.txt"
    labels.write_text("".join(label.name + "\n" for label in contract.labels), encoding="utf-8")
    geometry, normalisation = contract.input.geometry, contract.input.normalisation
    quantisation = contract.input.tensor.quantisation
    assert quantisation, "give an int8 artefact"
    facts = [
        geometry.height,
        round(geometry.height / geometry.crop_fraction),
        normalisation.divisor,
        normalisation.mean[0],
        quantisation.scale,
        quantisation.zero_point,
    ]
    model, image = str(arguments.artefact), str(arguments.image)
    kedge = [sys.executable, "-m", "kedge_runtime.cli", "classify"]
    bare = [sys.executable, "-c", BARE, model, str(labels), image, *map(str, facts)]
    return {
        "bare script": bare,
        "Classifier.open": [sys.executable, "-c", PYTHON, model, image],
        "kedge classify": [*kedge, model, image, "--threads", "1", "--top", "1"],
    }


def _answer(command: list[str]) -> str:
    """Return what a way answers; `kedge classify` has the probability before it."""
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    return ran.stdout.rpartition("%  ")[2].split("  ")[0].strip()


def run(command: list[str]) -> Cost:
    """Run a process to its end and return what it took."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, nowhere, 1), (os.POSIX_SPAWN_DUP2, nowhere, 2)]
    child = os.posix_spawn(command[0], command, ENVIRONMENT, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    os.close(nowhere)
    assert status == 0, command
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def _row(name: str, turns: list[dict[str, Cost]]) -> dict[str, float]:
    mine, bare = [turn[name] for turn in turns], [turn["bare script"] for turn in turns]
    pairs = list(zip(mine, bare, strict=True))
    return {
        "cpu_s": round(statistics.median(cost.cpu for cost in mine), 3),
        "cpu_ratio": round(statistics.median(one.cpu / other.cpu for one, other in pairs), 3),
        "peak_mb": round(statistics.median(cost.peak for cost in mine) / 1e6, 1),
        "peak_ratio": round(statistics.median(one.peak / other.peak for one, other in pairs), 3),
    }


def _write(report: dict[str, Any]) -> None:
    name = f"overhead-{machine.slug()}"
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = [
        "# One image in one process: kedge against a bare script",
        "",
        f"{report['machine']['processor']}, {report['artefact']}, medians of {report['runs']} "
        f"turns; limit {report['limit']} for `Classifier.open`.",
        "",
        "| way | CPU, s | ratio | peak, MB | ratio |",
        "| --- | --: | --: | --: | --: |",
    ]
    lines += [
        f"| {way} | {row['cpu_s']} | {row['cpu_ratio']} | {row['peak_mb']} | {row['peak_ratio']} |"
        for way, row in report["ways"].items()
    ]
    text = "\n".join(lines) + "\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artefact", type=Path, required=True, help="a sealed int8 classifier")
    parser.add_argument("--image", type=Path, required=True, help="a photo")
    parser.add_argument("--runs", type=int, default=21)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
