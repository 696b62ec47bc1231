"""Run a conversion inside a worker process, so that a toolkit's crash ends nothing else."""

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
from kedge_runtime.pool import end_with
from kedge_runtime.sandbox import Rights

# Programs and libraries, also those of Nix and Guix, and the kernel's files on the machine.
_SYSTEM = (
    *("/bin", "/gnu/store", "/lib", "/lib32", "/lib64", "/nix/store", "/opt", "/proc", "/sbin"),
    *("/sys", "/usr"),
)
# Files of the dynamic linker, the time zone, users' names; no keys, tokens or passwords.
_ETC = (
    *("alternatives", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
    *("mime.types", "nsswitch.conf", "os-release", "passwd"),
)
_DEVICES = ("dri", "full", "kfd", "null", "random", "shm", "urandom", "zero")
_SEARCH_PATHS = ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")


def rights_of(job: Job, *folders: Path) -> Rights:
    """Return the rights of a job's worker; `folders`: where it writes besides the job's own."""
    system = (*map(Path, _SYSTEM), *(Path("/etc", name) for name in _ETC))
    reads = (*system, *_python(), *_inputs(job))
    devices = (*(Path("/dev", name) for name in _DEVICES), *Path("/dev").glob("nvidia*"))
    return Rights(tuple(reads), (job.out, *folders, *devices))


def _python() -> Iterator[Path]:
    """Yield the folders of Python, its packages and kedge, but not the current folder.

    `python -m` searches that first, and it may be the user's home.
    """
    yield from map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix))
    yield Path(sys.executable).resolve().parent
    yield from map(Path, sysconfig.get_paths().values())
    current = Path.cwd()
    yield from (path for path in map(Path, filter(None, sys.path)) if path != current)
    for package in (kedge_convert, kedge_models, kedge_runtime):
        yield from map(Path, package.__path__)
    for variable in _SEARCH_PATHS:
        yield from map(Path, filter(None, os.environ.get(variable, "").split(os.pathsep)))
    yield application.cache_folder().parent
    if compiler := shutil.which(edgetpu.COMMAND):
        yield Path(compiler).resolve().parent


def _inputs(job: Job) -> Iterator[Path]:
    """Yield the user's files and folders."""
    request = job.request
    model = root(Path(request.model))
    yield model
    if model.exists() and architecture.holds(model):
        beside = model if model.is_dir() else model.parent
        yield from (beside, *(path.resolve() for path in beside.glob("*.h5")))
    if hub.holds(model):
        yield from _link_targets(model)  # Hugging Face's cache is made of links
    yield from (Path(each) for each in (request.weights, request.labels) if each)
    for folder in {Path(each) for each in (request.folder, job.calibrate) if each}:
        yield from (folder, *_link_targets(folder))


def _link_targets(folder: Path) -> Iterator[Path]:
    """Yield the targets of the links in a folder, at any depth."""
    waiting, seen = [folder], set[Path]()
    while waiting:
        for parent, folders, files in os.walk(waiting.pop()):
            for path in (Path(parent, name) for name in (*folders, *files)):
                if path.is_symlink() and (real := path.resolve()) not in seen:
                    seen.add(real)
                    waiting += [real] if real.is_dir() else []
                    yield real


LOG = logging.getLogger("kedge")
SWITCH = "KEDGE_SANDBOX"  # "off" disables the sandbox, where it is in the way

Work = Callable[[Job, Progress], Iterator[Outcome]]


@dataclass(frozen=True)
class WorkerRequest:
    """A worker's job and work, its parent process, and the folder for its temporary files.

    `rights`: all that it may access besides that folder. None doesn't confine it, for work that
    reads no untrusted file.
    """

    job: Job
    work: Work
    parent: int
    folder: Path
    rights: Rights | None = None


@dataclass(frozen=True)
class Done:
    """A target has its outcome."""

    outcome: Outcome


@dataclass(frozen=True)
class Refused:
    """A usage error, or a model that can't be converted at all."""

    error: KedgeError


@dataclass(frozen=True)
class Exhausted:
    """Python ran out of memory."""


@dataclass(frozen=True)
class Broken:
    """A bug in kedge, with its traceback."""

    trace: str


Message = Done | Refused | Exhausted | Broken


@dataclass(frozen=True)
class Finished:
    """The work is complete."""


def run(line: Connection, log: Connection, request: WorkerRequest) -> None:
    """Run a request; outcomes and events go to `line`, the toolkits' output to `log`."""
    _isolate(request)
    _redirect_output(log.fileno())
    _confine(request)
    # The supervisor may have closed the connection: then nobody needs the rest.
    with suppress(BrokenPipeError):
        try:
            for outcome in request.work(request.job, Progress(line.send)):
                line.send(Done(outcome))
            line.send(Finished())
        except BrokenPipeError:
            raise
        except KedgeError as error:
            line.send(refused(error))
        except MemoryError:
            traceback.print_exc()
            line.send(Exhausted())
        except Exception:
            line.send(Broken(traceback.format_exc()))


def refused(error: KedgeError) -> Refused:
    """Return an error without its cause.

    Where the cause is pickled too (by tblib), the parent would import TensorFlow to read it, with
    all that TensorFlow writes at its start.
    """
    error.__cause__ = error.__context__ = None
    return Refused(error.with_traceback(None))


def _isolate(request: WorkerRequest) -> None:
    """Tie the process to its parent, and its temporary files to its folder."""
    os.setsid()  # the parent handles Ctrl-C, and can end all descendants at once
    end_with(request.parent)
    tempfile.tempdir = os.environ["TMPDIR"] = str(request.folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Should the kernel run out of memory all the same, it ends this process first.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _confine(request: WorkerRequest) -> None:
    """Deny the network and all other folders to the process; log what the system can't deny."""
    if request.rights is None:
        return
    if os.environ.get(SWITCH) == "off":
        LOG.warning("sandbox: disabled by %s", SWITCH)
        return
    rights = replace(request.rights, writes=(*request.rights.writes, request.folder))
    for what, reason in sandbox.confine(rights).items():
        LOG.warning("sandbox: can't deny %s: %s", what, reason)


def _redirect_output(log: int) -> None:
    """Send stdout, stderr, output suppressed by `quiet`, and crashes to the log."""
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    output.SINK = f"/dev/fd/{log}"
    faulthandler.enable(log)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False  # a library may have given the root a handler whose stream is closed
    LOG.addHandler(logging.StreamHandler(os.fdopen(log, "w", buffering=1, closefd=False)))
