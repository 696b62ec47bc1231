"""Choose an inference engine and open models with it.

This module does not import numpy: `kedge doctor` uses it on machines where numpy can't be imported,
and the command line for its help.
"""

import os
import platform
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, cast, get_args

from kedge_runtime.errors import EngineError, UsageError, install
from kedge_runtime.frozen import dataclass
from kedge_runtime.modelfile.check import passed

if TYPE_CHECKING:
    from kedge_runtime.artefact.content import ModelContent
    from kedge_runtime.engines.base import Engine

Kernels = Literal["default", "builtin", "reference"]

ARM32 = "armv7l"  # platform.machine() of a 32-bit Raspberry Pi OS
ONNX = install("onnx")
OPENCV = "run a float32 model with --engine opencv"
TFLITE = "use .tflite files or a 64-bit system"  # where onnxruntime has no wheel

# Names given by Coral's documentation, by sys.platform.
EDGETPU_LIBRARIES = {"darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
EDGETPU_LIBRARY = EDGETPU_LIBRARIES.get(sys.platform, "libedgetpu.so.1")
EDGETPU_INSTALL = (
    "install Coral's Edge TPU runtime (Debian: apt install libedgetpu1-std, "
    "from Coral's package repository)"
)


@dataclass(frozen=True)
class Library:
    """A library of an engine: its module, its package for pip, and the versions that work.

    `numpy_below`: the first incompatible major version of numpy. `oldest`: (major, minor).
    """

    module: str
    package: str
    numpy_below: int | None = None
    oldest: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """The top-level package of the module."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class EngineKind:
    """An engine: its module, the formats that it runs, and its libraries, the preferred one first.

    `runs`: the formats for messages. `install`: ends the message when no library is installed.
    `copies`: whether several models of one process each have threads of their own.
    """

    module: str
    formats: frozenset[str]
    libraries: tuple[Library, ...]
    runs: str
    install: str
    kernels: frozenset[Kernels] = frozenset({"default"})
    delegates: bool = False
    copies: bool = False


# The first engine of a format is its default.
ENGINES = {
    "litert": EngineKind(
        "kedge_runtime.engines.litert",
        frozenset({"tflite"}),
        (
            Library("ai_edge_litert.interpreter", "ai-edge-litert"),
            # Its wheels were built against numpy 1: with numpy 2 every tensor raises SystemError.
            Library("tflite_runtime.interpreter", "tflite-runtime", numpy_below=2),
        ),
        ".tflite files",
        "pip install ai-edge-litert",
        frozenset(get_args(Kernels)),
        delegates=True,
        copies=True,
    ),
    "onnxruntime": EngineKind(
        "kedge_runtime.engines.onnxruntime",
        frozenset({"onnx"}),
        (Library("onnxruntime", "onnxruntime"),),
        ".onnx files",
        f"{ONNX}, or {OPENCV}",
        copies=True,
    ),
    "opencv": EngineKind(
        "kedge_runtime.engines.opencv",
        frozenset({"onnx"}),
        # 4.6 refuses the Clip and ReduceMean of today's ONNX; 4.8.1, 4.11 and 5.0 were tried.
        (Library("cv2", "opencv-python-headless", oldest=(4, 8)),),
        "images, and .onnx files of float32",
        "pip install opencv-python-headless",
    ),
}


# More than any machine has cores; engines crash when they can't start so many.
MAX_THREADS = 1024


@dataclass(frozen=True)
class EngineOptions:
    """How to open an engine. Raises UsageError for values that no engine allows.

    `threads`: 1 to MAX_THREADS; default: all cores this process may use.
    `delegate`: `edgetpu[:usb|pci|N]`, or the path of a delegate's shared library.
    `engine`: a key of ENGINES; default: the first one for the file's format.
    `kernels`: `default`; `builtin` leaves out the XNNPACK delegate; `reference` is slow, and on
    integer models gives the same bytes on every machine.
    `isolate`: run in a worker process with memory and time bounds: docs/security.md.
    `copies`: threads will run it at once, so each gets a copy of a small model (copies.py).
    """

    threads: int | None = None
    delegate: str | None = None
    engine: str | None = None
    kernels: Kernels = "default"
    isolate: bool = False
    copies: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range for every engine."""
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}, allowed are 1 and more")
        if self.threads is not None and self.threads > MAX_THREADS:
            raise UsageError(f"threads is {self.threads}, allowed are 1 to {MAX_THREADS}")
        if self.engine is not None and self.engine not in ENGINES:
            raise UsageError(f"engine is {self.engine!r}, known are {', '.join(ENGINES)}")
        if self.kernels not in get_args(Kernels):
            known = ", ".join(get_args(Kernels))
            raise UsageError(f"kernels is {self.kernels!r}, known are {known}")

    @property
    def thread_count(self) -> int:
        """The number of threads to start."""
        return self.threads or cores()


def cores() -> int:
    """Return the number of cores this process may use: a container's share, not the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def engine_for(format: str, options: EngineOptions) -> str:
    """Return the key of the engine for a format. Raises EngineError if it can't meet the options.

    No engine is replaced silently: a missing default engine is an error that names the others.
    """
    engines = [name for name, kind in ENGINES.items() if format in kind.formats]
    name = options.engine or engines[0]
    kind = ENGINES[name]
    if name not in engines:
        raise EngineError(f"{name} runs no .{format} files; engines that do: {', '.join(engines)}")
    if options.kernels not in kind.kernels:
        known = ", ".join(sorted(kind.kernels))
        raise EngineError(f"{name} has no {options.kernels} kernels, only: {known}")
    if options.delegate and not kind.delegates:
        raise EngineError(f"{name} takes no delegate; delegates are for .tflite files")
    return name


def open_engine(content: "ModelContent", options: EngineOptions | None = None) -> "Engine":
    """Load a model's bytes.

    A model with unknown operators runs in a worker process. Raises ArtefactError for an incomplete
    or invalid model, EngineError when it can't be loaded.
    """
    options = options or EngineOptions()
    engine = _open(content, options)
    engine.threads = options.thread_count
    return engine


def _open(content: "ModelContent", options: EngineOptions) -> "Engine":
    kind = ENGINES[engine_for(content.format, options)]
    if options.isolate or not passed.is_known(content):
        from kedge_runtime.modelfile.check.check import check_model

        cost = check_model(content)
        if options.isolate or cost.unknown:
            from kedge_runtime.engines.isolated import open_isolated

            return open_isolated(content, options, cost)
        passed.remember(content)
    load = import_module(kind.module).open_engine
    if not (options.copies and kind.copies) or options.delegate:
        return cast("Engine", load(content, options))
    from kedge_runtime.engines.copies import open_copies

    return open_copies(load, content, options)


def is_installed(library: Library) -> bool:
    """Return whether a library is installed, without importing it."""
    try:
        return find_spec(library.name) is not None
    except ImportError:
        return False


def numpy_gate(library: Library, numpy_version: str) -> str:
    """Return why `library` fails with this numpy and the remedy, or an empty string."""
    limit = library.numpy_below
    if limit is None or int(numpy_version.partition(".")[0]) < limit:
        return ""
    return f"{library.package} fails with numpy {numpy_version}: pip install 'numpy<{limit}'"


def version_gate(library: Library, version: str, machine: str = "") -> str:
    """Return why a library's version runs no models and the remedy, or an empty string.

    `machine`: as `platform.machine()` names it; default: this one.
    """
    if tuple(map(int, re.findall(r"\d+", version)[:2])) >= library.oldest:
        return ""
    oldest = ".".join(map(str, library.oldest))
    upgrade = f"upgrade {library.package}"
    no_wheel = (machine or platform.machine()) == ARM32
    onnx = f"{ONNX} and take onnxruntime, or {upgrade}"
    remedy = f"{TFLITE}, or {upgrade}" if no_wheel else onnx
    return f"{library.name} {version} runs no models, {oldest} and newer do: {remedy}"


def how_to_install(engine: str, machine: str = "", python: tuple[int, ...] = ()) -> str:
    """Return how to install a missing engine on this machine (default) or another one."""
    machine, python = machine or platform.machine(), python or sys.version_info[:2]
    if machine != ARM32 or engine == "opencv":
        return ENGINES[engine].install
    if engine == "onnxruntime":
        return f"onnxruntime has no wheel for 32-bit ARM: {TFLITE}, or {OPENCV}"
    # ai-edge-litert has no 32-bit wheel, and tflite-runtime's wheels end at Python 3.11.
    if python < (3, 12):
        return "pip install tflite-runtime 'numpy<2'"
    return "32-bit ARM has LiteRT up to Python 3.11 only: use Python 3.11, or a 64-bit system"
