"""A real Dask cluster on this machine, and work that ends its worker in mid-run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from kedge_runtime.drift.journal import Shard
from kedge_runtime.drift.measure import Part, Task, measure
from kedge_runtime.errors import UsageError

QUIET = ["--no-dashboard", "--host", "127.0.0.1"]
# Two losses of a worker are one too many: the usual four take their time.
SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Yield the address of a scheduler with two workers, started as a user does, elsewhere."""
    about = folder / "scheduler.json"
    with _running("scheduler", folder, *QUIET, "--port", "0", "--scheduler-file", about) as begun:
        while not about.exists():
            assert begun.poll() is None, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        address = str(json.loads(about.read_text())["address"])
        two = ["--nworkers", "2", "--nthreads", "1", "--local-directory", folder]
        with _running("worker", folder, address, *QUIET, *two):
            yield address


@contextmanager
def _running(what: str, folder: Path, *words: object) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, words)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    here = {**os.environ, **SETTINGS, "PYTHONPATH": path}
    with (folder / f"{what}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=here, cwd=folder)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def end_process() -> NoReturn:
    """End this process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def end_worker() -> NoReturn:
    """End the Dask worker whose process this is; the system ends this one with it."""
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()
    raise AssertionError


ENDS = {"process": end_process, "worker": end_worker}


def always(what: str) -> NoReturn:
    """End it whenever this is called."""
    ENDS[what]()


def measured(flag: Path, what: str, task: Task, shard: Shard) -> Part:
    """Measure a shard; the third one ends what is named, once."""
    if shard.index == 2 and not flag.exists():
        flag.touch()
        ENDS[what]()
    return measure(task, shard)


def noted(place: Path) -> None:
    """Leave a file, but for one that isn't wanted. Raises UsageError.

    The files take longer than the news of the error does, however late its process began.
    """
    refused = place.with_name("refused")
    if place.name == "none":
        refused.touch()
        raise UsageError("none")
    while not refused.exists():
        time.sleep(0.01)
    time.sleep(0.1)
    place.touch()


def measured_but(last: int, task: Task, shard: Shard) -> Part:
    """Measure the shards before `last`. Raises UsageError."""
    if shard.index >= last:
        raise UsageError("no more")
    return measure(task, shard)


def measured_only(first: int, task: Task, shard: Shard) -> Part:
    """Measure what `measured_but` left."""
    assert shard.index >= first
    return measure(task, shard)


def endless(folder: Path) -> None:
    """Work until it is told to end, and clean up."""
    (folder / "begun").touch()
    try:
        while True:
            time.sleep(1)
    finally:
        (folder / "cleaned up").touch()
