"""The process in which a conversion runs, so that a toolkit that dies takes nothing else along.

It sends events, outcomes and errors down a line, and ends with the process that started it.
"""

import faulthandler
import logging
import os
import resource
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from kedge_convert.job import Job, Outcome
from kedge_convert.progress import Progress
from kedge_runtime import quiet, sandbox
from kedge_runtime.errors import KedgeError
from kedge_runtime.pool.processes import end_with
from kedge_runtime.sandbox import Rights

LOG = logging.getLogger("kedge")
SWITCH = "KEDGE_SANDBOX"  # "off" leaves the worker free, where the sandbox is in the way

Work = Callable[[Job, Progress], Iterator[Outcome]]


@dataclass(frozen=True)
class Orders:
    """What a worker is to do, for whom, and the folder for its temporary files.

    `rights`: all that it may touch besides that folder; None doesn't confine it, for work that sees
    no file of a stranger's.
    """

    job: Job
    work: Work
    parent: int
    folder: Path
    rights: Rights | None = None


@dataclass(frozen=True)
class Done:
    """A target is done with."""

    outcome: Outcome


@dataclass(frozen=True)
class Refused:
    """The user's mistake, or a model that can't be converted at all."""

    error: KedgeError


@dataclass(frozen=True)
class Exhausted:
    """Python itself was refused memory."""


@dataclass(frozen=True)
class Broken:
    """A bug of ours, with its traceback."""

    trace: str


Message = Done | Refused | Exhausted | Broken


@dataclass(frozen=True)
class Finished:
    """There is no more to come."""


def run(line: Connection, log: Connection, orders: Orders) -> None:
    """Do the work, tell of it on the line, and leave what the toolkits write in the log."""
    _settle(orders)
    _write_to(log.fileno())
    _confine(orders)
    # Whoever has hung up wants to hear no more.
    with suppress(BrokenPipeError):
        line.send(_worked(line, orders))


def _worked(line: Connection, orders: Orders) -> Message | Finished:
    try:
        for outcome in orders.work(orders.job, Progress(line.send)):
            line.send(Done(outcome))
    except BrokenPipeError:
        raise
    except KedgeError as error:
        return refused(error)
    except MemoryError:
        traceback.print_exc()
        return Exhausted()
    except Exception:
        return Broken(traceback.format_exc())
    return Finished()


def refused(error: KedgeError) -> Refused:
    """Return the message of an error, alone.

    Where its cause is pickled too (by tblib), the parent would import TensorFlow to read it, with
    all that TensorFlow writes at its start.
    """
    error.__cause__ = error.__context__ = None
    return Refused(error.with_traceback(None))


def _settle(orders: Orders) -> None:
    """Tie the process to its parent, and its temporary files to its folder."""
    os.setsid()  # Ctrl-C is the parent's to handle, and all descendants can be ended at once
    end_with(orders.parent)
    tempfile.tempdir = os.environ["TMPDIR"] = str(orders.folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Should the kernel run out of memory all the same, it takes this process first.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _confine(orders: Orders) -> None:
    """Close the network and all other folders to the process, and log what the system can't."""
    if orders.rights is None:
        return
    if os.environ.get(SWITCH) == "off":
        LOG.warning("sandbox: off, as %s says", SWITCH)
        return
    rights = replace(orders.rights, writes=(*orders.rights.writes, orders.folder))
    for what, reason in sandbox.confine(rights).items():
        LOG.warning("sandbox: %s not held back: %s", what, reason)


def _write_to(log: int) -> None:
    """Send both outputs, what is turned away by `quiet`, and crashes to the log."""
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    quiet.SINK = f"/dev/fd/{log}"
    faulthandler.enable(log)
    LOG.setLevel(logging.INFO)
    LOG.addHandler(logging.StreamHandler(os.fdopen(log, "w", buffering=1, closefd=False)))
