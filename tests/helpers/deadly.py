"""Work that dies as toolkits do, for the worker process of test_supervisor.py to do.

The "model" of a job is a JSON file: where to die (a stage or a target) -> how.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import Any, NoReturn

from kedge_convert import pipeline
from kedge_convert.export.exported import Recipe
from kedge_convert.export.formats import FORMATS
from kedge_convert.job import Checked, Job, Outcome, failed
from kedge_convert.load.request import SourceRequest
from kedge_convert.parity import Parity
from kedge_convert.source import Source
from kedge_convert.staging import publish, write
from kedge_convert.targets import TARGETS, Target
from kedge_convert.toolkit import ConversionError
from kedge_convert.verdict import Verdict
from kedge_convert.worker.process import INTERVAL, Bounds, highest
from kedge_convert.worker.progress import PREPARATION, Progress
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.errors import UsageError
from kedge_runtime.files import staged
from kedge_runtime.output import quiet

PAGE = 4096
SAME = Parity(1, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, float("inf"), 0.0)


def fill() -> NoReturn:
    """Take 16 MB after the other, and write to it, until someone puts an end to it."""
    taken = []
    while True:
        taken.append(bytearray(b"x") * (16 << 20))


def map_file() -> None:
    """Touch every page of TensorFlow's library: they are resident, but needn't be."""
    spec = find_spec("tensorflow")
    assert spec
    assert spec.origin
    library = max(Path(spec.origin).parent.glob("*.so*"), key=lambda path: path.stat().st_size)
    with library.open("rb") as file, mmap(file.fileno(), 0, prot=PROT_READ) as mapped:
        assert sum(mapped[::PAGE])
        resident = sum(highest(os.getpid()).values())
        assert resident > len(mapped) // 2
        time.sleep(10 * INTERVAL)


def fill_in_a_child() -> NoReturn:
    os.fork() or fill()
    hang()


def hang() -> NoReturn:
    while True:
        time.sleep(1)


def bug() -> NoReturn:
    raise ZeroDivisionError("ours")


def refuse() -> NoReturn:
    raise UsageError("the user's mistake")


def give_up() -> NoReturn:
    raise ConversionError("no such operator")


def too_large() -> None:
    bytearray(1 << 60)


WAYS: dict[str, Callable[[], object]] = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "fill": fill,
    "fill in a child": fill_in_a_child,
    "map a file": map_file,
    "hang": hang,
    "bug": bug,
    "refuse": refuse,
    "give up": give_up,
    "too large": too_large,
}


def work(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Do as `pipeline.convert` does, but for the models, and die where the plan says so."""
    plan = json.loads(Path(job.request.model).read_text())
    with progress.stage("load model"):
        os.write(1, b"loading on stdout\n")
        _die(plan, "load model")
    progress.say("a warning")
    if job.effort.prepares:
        progress.start_part(PREPARATION)
        with progress.stage("prepare weights", 3) as tick:
            tick()
            _die(plan, "prepare weights")
    for target in job.targets:
        progress.start_part(str(target))
        yield _made(job, target, plan, progress)


def real(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Do as `pipeline.convert` does, with a TFLite converter that dies of some precisions."""
    tflite = FORMATS["tflite"]
    ways = {"float16": "segfault", "dynamic": "fill"}
    whole = tflite.export

    def export(source: Source, precision: Precision, *others: Any) -> Any:
        with quiet():
            WAYS.get(ways.get(precision, ""), bool)()
        return whole(source, precision, *others)

    vars(tflite)["export"] = export
    return pipeline.convert(job, progress)


def _made(job: Job, target: Target, plan: dict[str, str], progress: Progress) -> Outcome:
    final = job.out / target.file_name("model")
    try:
        with staged(final) as temporary, progress.stage(f"export {target}"):
            write(temporary, b"half")
            _die(plan, str(target))
            publish(temporary, final)
    except ConversionError as error:
        return failed(target, str(error))
    notes = (job.unprepared,) if job.unprepared else ()
    checked = Checked(final, 4, 1.0, SAME, Recipe("float32"), "softmax")
    return Outcome(target, Verdict(), checked, notes)


def _die(plan: dict[str, str], where: str) -> None:
    if where in plan:
        WAYS[plan[where]]()


def job(plan: Path, out: Path, targets: tuple[Target, ...] = TARGETS[:3]) -> Job:
    """Return a job for `work`."""
    return Job(SourceRequest(str(plan)), targets, out)


def main() -> None:
    """Supervise the job of the plan and the folder that are named on the command line."""
    from kedge_convert.worker import supervisor

    plan, out = map(Path, sys.argv[1:])
    with Progress() as progress:
        supervisor.convert(job(plan, out), progress, Bounds(), work)
