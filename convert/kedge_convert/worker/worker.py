"""Run a conversion in a process of its own, so that a toolkit that crashes takes nothing along."""

import faulthandler
import logging
import os
import resource
import shutil
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import kedge_convert
import kedge_models
import kedge_runtime
from kedge_convert.device import edgetpu
from kedge_convert.job import Job, Outcome
from kedge_convert.load import application, architecture, hub
from kedge_convert.load.saved_model import root
from kedge_convert.worker.progress import Progress
from kedge_runtime import output, sandbox
from kedge_runtime.errors import KedgeError
from kedge_runtime.pool.processes import end_with
from kedge_runtime.sandbox import Rights

# Programs and libraries, also those of Nix and Guix, and what the kernel tells of the machine.
_SYSTEM = (
    *("/bin", "/gnu/store", "/lib", "/lib32", "/lib64", "/nix/store", "/opt", "/proc", "/sbin"),
    *("/sys", "/usr"),
)
# The dynamic linker's, the time zone, names of users; no keys, tokens or shadow passwords.
_ETC = (
    *("alternatives", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
    *("mime.types", "nsswitch.conf", "os-release", "passwd"),
)
_DEVICES = ("dri", "full", "kfd", "null", "random", "shm", "urandom", "zero")
_SEARCHED = ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")


def rights_of(job: Job, *folders: Path) -> Rights:
    """Return what a job's worker needs; `folders`: what it writes besides the job's own folder."""
    reads = (*map(Path, _SYSTEM), *(Path("/etc", name) for name in _ETC), *_python(), *_asked(job))
    devices = (*(Path("/dev", name) for name in _DEVICES), *Path("/dev").glob("nvidia*"))
    return Rights(tuple(reads), (job.out, *folders, *devices))


def _python() -> Iterator[Path]:
    """Yield where Python, its packages and kedge lie, but no folder that only happens to be there.

    `python -m` puts the current folder first, which may be the user's home.
    """
    yield from map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix))
    yield Path(sys.executable).resolve().parent
    yield from map(Path, sysconfig.get_paths().values())
    here = Path.cwd()
    yield from (path for path in map(Path, filter(None, sys.path)) if path != here)
    for package in (kedge_convert, kedge_models, kedge_runtime):
        yield from map(Path, package.__path__)
    for variable in _SEARCHED:
        yield from map(Path, filter(None, os.environ.get(variable, "").split(os.pathsep)))
    yield application.cache_folder().parent
    if compiler := shutil.which(edgetpu.COMMAND):
        yield Path(compiler).resolve().parent


def _asked(job: Job) -> Iterator[Path]:
    """Yield the files and folders that the user names."""
    request = job.request
    model = root(Path(request.model))
    yield model
    if model.exists() and architecture.holds(model):
        beside = model if model.is_dir() else model.parent
        yield from (beside, *(path.resolve() for path in beside.glob("*.h5")))
    if hub.holds(model):
        yield from _behind_links(model)  # Hugging Face's cache is made of them
    yield from (Path(each) for each in (request.weights, request.labels) if each)
    for folder in {Path(each) for each in (request.folder, job.calibrate) if each}:
        yield from (folder, *_behind_links(folder))


def _behind_links(folder: Path) -> Iterator[Path]:
    """Yield what the links in a folder mean, at any depth."""
    waiting, seen = [folder], set[Path]()
    while waiting:
        for place, below, names in os.walk(waiting.pop()):
            for path in (Path(place, name) for name in (*below, *names)):
                if path.is_symlink() and (real := path.resolve()) not in seen:
                    seen.add(real)
                    waiting += [real] if real.is_dir() else []
                    yield real


LOG = logging.getLogger("kedge")
SWITCH = "KEDGE_SANDBOX"  # "off" leaves the worker free, where the sandbox is in the way

Work = Callable[[Job, Progress], Iterator[Outcome]]


@dataclass(frozen=True)
class WorkerRequest:
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


def run(line: Connection, log: Connection, orders: WorkerRequest) -> None:
    """Do the work, tell of it on the line, and leave what the toolkits write in the log."""
    _settle(orders)
    _write_to(log.fileno())
    _confine(orders)
    # Whoever has hung up wants to hear no more.
    with suppress(BrokenPipeError):
        line.send(_worked(line, orders))


def _worked(line: Connection, orders: WorkerRequest) -> Message | Finished:
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


def _settle(orders: WorkerRequest) -> None:
    """Tie the process to its parent, and its temporary files to its folder."""
    os.setsid()  # Ctrl-C is the parent's to handle, and all descendants can be ended at once
    end_with(orders.parent)
    tempfile.tempdir = os.environ["TMPDIR"] = str(orders.folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Should the kernel run out of memory all the same, it takes this process first.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _confine(orders: WorkerRequest) -> None:
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
    output.SINK = f"/dev/fd/{log}"
    faulthandler.enable(log)
    LOG.setLevel(logging.INFO)
    LOG.addHandler(logging.StreamHandler(os.fdopen(log, "w", buffering=1, closefd=False)))
