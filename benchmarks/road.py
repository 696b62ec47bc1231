"""How far is it from `kedge convert` to TensorFlow's quantiser? Counts frames and files.

Converts the demo in the worker process, as the command does. The stack is taken in both processes:
where the command starts the worker, and at every call of TensorFlow's converter and quantiser.
Only frames of kedge count. Fails when the longest road in the conversion is above its limits.

    python benchmarks/road.py [--to tflite:int8] [--min-agreement 0.999999]
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial, wraps
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from kedge_convert import pipeline
from kedge_convert.commands.convert import convert
from kedge_convert.job import Job, Outcome
from kedge_convert.toolkit import require
from kedge_convert.worker import supervisor
from kedge_convert.worker.progress import Progress

FRAMES, FILES = 8, 5  # at most, from the pipeline to TensorFlow
ROADS = "roads.json"
Road = list[tuple[str, str]]  # (file, function), the outermost first


def road() -> Road:
    """Return the frames of kedge on the stack."""
    frames = traceback.extract_stack()
    return [(f.filename, f.name) for f in frames if "/kedge_" in f.filename]


def watched(roads: list[Road], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function; each call adds its road."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        roads.append(road())
        return function(*args, **kwargs)

    return call


def watch(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Convert as the worker does, and write the roads to TensorFlow beside the artefacts."""
    roads: list[Road] = []
    quantiser = require("tensorflow.lite.python.convert")
    make = require("tensorflow.lite.python.lite").TFLiteConverterV2.from_concrete_functions

    def from_concrete_functions(functions: Any) -> Any:
        converter = make(functions)
        converter.convert = watched(roads, converter.convert)
        return converter

    converter = require("tensorflow").lite.TFLiteConverter
    quantise = watched(roads, quantiser.mlir_quantize)
    with (
        mock.patch.object(converter, "from_concrete_functions", from_concrete_functions),
        mock.patch.object(quantiser, "mlir_quantize", quantise),
    ):
        yield from pipeline.convert(job, progress)
    (job.out / ROADS).write_text(json.dumps(roads))


def measure(arguments: list[str]) -> tuple[Road, list[Road]]:
    """Return the road to the worker, and those of the worker to TensorFlow."""
    starts: list[Road] = []
    with TemporaryDirectory() as folder:
        command = ["demo", "--out", folder, *arguments]
        work = partial(supervisor.convert, work=watch)
        with (
            mock.patch.object(SpawnProcess, "start", watched(starts, SpawnProcess.start)),
            mock.patch.object(supervisor, "convert", work),
        ):
            convert.main(command, prog_name="kedge convert", standalone_mode=False)
        roads = json.loads((Path(folder) / ROADS).read_text())
    return starts[0], [[(file, name) for file, name in each] for each in roads]


def conversion(whole: Road) -> Road:
    """Return the part of a worker's road that begins with the pipeline."""
    names = [name for file, name in whole if file.endswith("/pipeline.py")]
    at = next(i for i, (file, _) in enumerate(whole) if file.endswith("/pipeline.py"))
    assert names[0] == "convert"
    return whole[at:]


def files(each: Road) -> int:
    """Return how many files a road passes."""
    return len({file for file, _ in each})


def tell(title: str, each: Road) -> None:
    """Print a road, its frames and files counted."""
    print(f"{title}: {len(each)} frames, {files(each)} files")
    for file, name in each:
        print(f"  {Path(file).parent.name}/{Path(file).name}: {name}")


def main() -> int:
    """Return 1 when the longest road is above the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", default="tflite:int8")
    parser.add_argument("--min-agreement", default=None)
    options = parser.parse_args()
    least = ["--min-agreement", options.min_agreement] if options.min_agreement else []
    start, roads = measure(["--to", options.to, *least])
    inner = [conversion(each) for each in roads]
    longest = max(range(len(inner)), key=lambda i: (len(inner[i]), files(inner[i])))
    for i, each in enumerate(inner):
        print(f"call {i}: {len(each)} frames, {files(each)} files")
    tell("the longest road of the conversion", inner[longest])
    tell("with the worker and the command", [*start, *roads[longest]])
    frames, most = max(map(len, inner)), max(map(files, inner))
    return int(frames > FRAMES or most > FILES)


if __name__ == "__main__":
    sys.exit(main())
