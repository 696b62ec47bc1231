"""Work that reaches for what a worker has no right to, for test_sandbox.py to have done.

The "model" of a job is a file of lines to try. The outcome of each is said, as `what: how it went`.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kedge_convert import pipeline
from kedge_convert.job import Job, Outcome, failed
from kedge_convert.load import application, graph_safety
from kedge_convert.worker.progress import Progress
from kedge_runtime.errors import reason_of

OUTSIDE = "outside"  # beside the folder of the model
CACHED = "weights"  # in the job's output folder, as if it were Keras's cache


def connect(job: Job) -> None:
    socket.create_connection(("127.0.0.1", 9), timeout=5)


def send_a_datagram(job: Job) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", ("127.0.0.1", 9))


def connect_in_a_child(job: Job) -> None:
    code = "import socket; socket.socket()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    if done.returncode:
        raise PermissionError(1, done.stderr.splitlines()[-1].partition("] ")[2])


def open_a_local_socket(job: Job) -> None:
    socket.socket(socket.AF_UNIX)


def outside(job: Job) -> Path:
    return Path(job.request.model).parent.parent / OUTSIDE


def write_in_a_thread(job: Job) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        threads.submit((outside(job) / "written").write_text, "x").result()


def move(job: Job) -> None:
    made = job.out / "made"
    made.write_text("x")
    made.rename(outside(job) / "made")


def follow_a_link(job: Job) -> None:
    link = job.out / "link"
    link.symlink_to(outside(job))
    try:
        (link / "secret").read_text()
    finally:
        link.unlink()


def write_and_remove(job: Job) -> None:
    (job.out / "made").write_text("x")
    (job.out / "made").unlink()


TRIES: dict[str, Callable[[Job], object]] = {
    "connect": connect,
    "datagram": send_a_datagram,
    "connect in a child": connect_in_a_child,
    "local socket": open_a_local_socket,
    "write": lambda job: (outside(job) / "written").write_text("x"),
    "write in a thread": write_in_a_thread,
    "truncate": lambda job: os.truncate(outside(job) / "secret", 0),
    "remove": lambda job: (outside(job) / "secret").unlink(),
    "move out": move,
    "link": follow_a_link,
    "read": lambda job: (outside(job) / "secret").read_text(),
    "list": lambda job: list(outside(job).iterdir()),
    "other temporary files": lambda job: list(Path(os.environ["TMPDIR"]).parent.iterdir()),
    "shadow": lambda job: Path("/etc/shadow").read_text(),
    "signal": lambda job: os.kill(os.getppid(), 0),
    "model": lambda job: Path(job.request.model).read_text(),
    "image": lambda job: [path.read_bytes() for path in (job.calibrate or job.out).iterdir()],
    "out": write_and_remove,
    "temporary": lambda job: Path(os.environ["TMPDIR"], "made").write_text("x"),
    "library": lambda job: Path(np.__file__).read_text(),
    "machine": lambda job: (
        Path("/proc/meminfo").read_text() + Path("/proc/self/status").read_text()
    ),
    "child": lambda job: subprocess.run([sys.executable, "-c", ""], check=True),
    "pipe": lambda job: socket.socketpair()[0].close(),
}


def work(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Try each line of the job's model, and say how it went."""
    for name in Path(job.request.model).read_text().splitlines():
        try:
            TRIES[name](job)
        except OSError as error:
            progress.say(f"{name}: {reason_of(error)}")
        else:
            progress.say(f"{name}: done")
    yield from (failed(target, "only tried") for target in job.targets)


def unchecked(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Convert without a look at what a SavedModel does."""
    vars(graph_safety)["refuse_program"] = lambda saved: None
    return pipeline.convert(job, progress)


def lacking(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Lack weights, as a card's model does that nobody has downloaded."""
    if not (job.out / CACHED).exists():
        raise application.AbsentError(
            "the weights can't be downloaded: connect, or give --weights FILE"
        )
    yield from (failed(target, "found") for target in job.targets)


def fetch(job: Job, progress: Progress) -> Iterator[Outcome]:
    """Download the weights, over a socket."""
    with progress.stage("download weights"):
        socket.socket().close()
        (job.out / CACHED).write_text("x")
    yield from ()
