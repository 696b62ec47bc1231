"""kedge's ways in the league: the command that its users run, with the options of each way."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import league_table
import quantisation_ways as ways
from kedge_convert.load.request import SourceRequest
from kedge_convert.sampling import Sampling
from kedge_runtime.artefact.containers import split as without_seal

# An option that this kedge lacks makes a row that says so.
WAYS: dict[str, tuple[str, ...]] = {
    "kedge": (),
    "kedge fast": ("--effort", "fast"),
    league_table.HIGH: ("--effort", "high"),
    "kedge, synthetic images": ("--calibrate", "synthetic"),
    league_table.BUDGET: ("--min-agreement", str(league_table.MIN_AGREEMENT)),
}
FORMATS = ("tflite", "onnx")


@dataclass(frozen=True)
class Converted:
    """A file; `passed`: the verdict of `kedge convert`; `precision`: of the file."""

    made: ways.Made
    passed: bool | None = None
    precision: str = "int8"


def convert(
    way: str, request: SourceRequest, images: Path, sampling: Sampling
) -> Iterator[Converted]:
    """Run `kedge convert` for both formats. A file that missed a limit is measured, too."""
    with tempfile.TemporaryDirectory() as out:
        targets = ",".join(f"{form}:int8" for form in FORMATS)
        command = [sys.executable, "-m", "kedge_runtime", "convert", request.model, "--json", "-q"]
        command += ["--to", targets, "--out", out, "--force-input", *_counts(sampling)]
        command += [*_flags(request), *WAYS[way]]
        if "--calibrate" not in WAYS[way]:
            command += ["--calibrate", str(images)]
        start = time.perf_counter()
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        seconds = time.perf_counter() - start
        if not done.stdout:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            yield Converted(ways.Made(way, "", b"", note=f"fails: {reason[:200]}"))
            return
        for artefact in json.loads(done.stdout)["artefacts"]:
            yield _converted(way, artefact, seconds)


def _converted(way: str, artefact: dict[str, Any], seconds: float) -> Converted:
    form = artefact["target"].partition(":")[0]
    if not artefact["path"]:
        return Converted(ways.Made(way, form, b"", note=f"fails: {artefact['reasons'][0][:200]}"))
    content, _ = without_seal(form, Path(artefact["path"]).read_bytes())
    made = ways.Made(way, form, bytes(content), seconds, note=_note(artefact))
    return Converted(made, artefact["passed"], artefact["precision"])


def _counts(sampling: Sampling) -> list[str]:
    counts = {
        "--calibrate-count": sampling.calibration,
        "--check-count": sampling.check,
        "--confidence-count": sampling.confidence,
        "--seed": sampling.seed,
    }
    return [str(each) for pair in counts.items() for each in pair]


def _flags(request: SourceRequest) -> list[str]:
    values = {
        "--card": request.card,
        "--labels": request.labels,
        "--preprocess": request.pixels.preprocess,
        "--normalisation": request.pixels.normalisation,
    }
    return [each for name, value in values.items() if value for each in (name, value)]


def _note(artefact: dict[str, Any]) -> str:
    parts = [artefact[key] for key in ("precision", "method", "ranges") if artefact[key]]
    layers = artefact["float_layers"]
    return ", ".join([*parts, f"{len(layers)} layers in float"] if layers else parts)
