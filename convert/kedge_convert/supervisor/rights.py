"""What the worker may read and write: the job's files, Python, and what every program needs."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import kedge_convert
import kedge_models
import kedge_runtime
from kedge_convert.edge import edgetpu
from kedge_convert.job import Job
from kedge_convert.sources import architecture, hub, zoo
from kedge_convert.sources.saved_model import root
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
    yield zoo.cache_folder().parent
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
