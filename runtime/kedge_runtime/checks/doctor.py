"""Check this machine and suggest fixes.

This module imports no library that may be broken: each is tried in a separate process. That also
survives a wheel that was built for another processor. Versions with known security holes that
untrusted files can reach are found, too; the lower bounds of pyproject.toml exclude them. Debian
fixes the libraries that it packages under their old versions, so they are skipped.
"""

import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

from kedge_runtime import __version__, sandbox
from kedge_runtime.checks import hardware
from kedge_runtime.checks.hardware import Finding, Machine, State, package_version
from kedge_runtime.engines.choice import (
    ENGINES,
    EngineKind,
    Library,
    how_to_install,
    is_installed,
    numpy_gate,
    version_gate,
)
from kedge_runtime.errors import install
from kedge_runtime.frozen import dataclass


@dataclass(frozen=True)
class Hole:
    """A security hole in the versions of a package from `since` to before `fixed`."""

    package: str
    since: str
    fixed: str
    why: str


OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
EXTERNAL_DATA = "reads files outside the model's folder (external data)"

HOLES = (
    *(
        Hole(name, "0", "4.8.1.78", "a WebP image can run code (libwebp, CVE-2023-4863)")
        for name in OPENCV
    ),
    *(
        Hole(name, "4.10", "4.12.0.88", "a JPEG image can overwrite memory (CVE-2025-53644)")
        for name in OPENCV
    ),
    Hole("onnxruntime", "0", "1.28", EXTERNAL_DATA),
    Hole("onnx", "0", "1.21", f"{EXTERNAL_DATA}, CVE-2026-27489"),
    Hole("keras", "0", "3.12.4", "a model file can run code (CVE-2025-49655, CVE-2026-1462)"),
    Hole("keras", "3.13", "3.15.1", "a model file can run code (CVE-2026-1462, CVE-2026-12481)"),
    Hole(
        "tensorflow",
        "0",
        "2.21",
        "loads plugins from a folder that others can write (CVE-2026-2492)",
    ),
    Hole(
        "tensorflow-cpu",
        "0",
        "2.21",
        "loads plugins from a folder that others can write (CVE-2026-2492)",
    ),
    Hole("pillow", "0", "12.3", "an image can overwrite memory (CVE-2026-25990 and later ones)"),
    Hole("jinja2", "0", "3.1.6", "a template can leave its sandbox (CVE-2025-27516)"),
    Hole("protobuf", "0", "5.29.6", "deep nesting ends the process (CVE-2026-0994)"),
    Hole("protobuf", "6", "6.33.5", "deep nesting ends the process (CVE-2026-0994)"),
    Hole("cryptography", "0", "46.0.7", "bundles an OpenSSL with known holes"),
)


def holes_in(installed: Mapping[str, str]) -> list[Hole]:
    """Return the known holes of installed packages, given as name: version."""
    return [
        hole
        for hole in HOLES
        if hole.package in installed
        and _numbers(hole.since) <= _numbers(installed[hole.package]) < _numbers(hole.fixed)
    ]


def check_holes(machine: Machine) -> Finding:
    """Report which installed packages have known holes, and how to upgrade them."""
    installed = _installed_versions()
    holes = holes_in(installed)
    if not holes:
        return Finding("ok", f"none known in {len(installed)} packages")
    detail = "; ".join(f"{hole.package} {installed[hole.package]}: {hole.why}" for hole in holes)
    fixed = " ".join(f"'{hole.package}>={hole.fixed}'" for hole in holes)
    return Finding("note", detail, f"pip install --upgrade {fixed}")


def _installed_versions() -> dict[str, str]:
    versions = {hole.package: package_version(hole.package) for hole in HOLES}
    return {name: number for name, number in versions.items() if number and not _is_debians(name)}


def _is_debians(package: str) -> bool:
    return "dist-packages" in Path(str(distribution(package).locate_file(""))).parts


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without the zeros at its end: 3.12 is 3.12.0."""
    release = re.match(r"[\d.]*", version)
    numbers = [int(number) for number in re.findall(r"\d+", release[0] if release else "")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


NUMPY = Library("numpy", "numpy")

# Pattern in the message of a failed import -> the fix; {package} is the library's name for pip.
HEADLESS = "opencv-python-headless"
CURES = {
    r"libGL\.so|libgthread|libglib|libSM\.so|libXext": (
        f"pip uninstall -y opencv-python {HEADLESS} && pip install {HEADLESS}"
    ),
    r"multiarray|_ARRAY_API|NumPy 1\.x": (
        "pip install --upgrade {package}, or pip install 'numpy<2' for an old one"
    ),
    r"libopenblas|libatlas": "apt install libopenblas0",
    r"GLIBC": "this system is too old: upgrade it, or install an older {package}",
    r"SIGILL": "{package} was built for another processor: use the system's own package",
}
REINSTALL = "pip install --force-reinstall {package}"

TIMEOUT = 120  # seconds; a first import on the slowest boards takes ten


@dataclass(frozen=True)
class Trial:
    """The result of importing a library in a separate process: its version, or why it failed."""

    version: str = ""
    reason: str = ""


def check_kedge(machine: Machine) -> Finding:
    """Report the versions of kedge, Python and the system."""
    return Finding("ok", f"{__version__}, Python {platform.python_version()}, {_system(machine)}")


def check_library(library: Library, machine: Machine) -> Finding:
    """Import a library that all engines need."""
    if not is_installed(library):
        return Finding("problem", "not installed", f"pip install {library.package}")
    trial = try_import(library)
    if trial.reason:
        return Finding("problem", trial.reason, cure(trial.reason, library))
    return Finding("ok", trial.version)


def check_engine(name: str, machine: Machine) -> Finding:
    """Try an engine's libraries in their order; the first that works counts."""
    kind = ENGINES[name]
    findings = [_check_library_of(kind, library, machine) for library in _installed(kind)]
    if not findings:
        # One engine is enough; the default install includes LiteRT.
        state: State = "problem" if name == "litert" else "note"
        return Finding(state, "not installed", how_to_install(name, machine.processor))
    return next((finding for finding in findings if finding.state == "ok"), findings[0])


def _check_library_of(kind: EngineKind, library: Library, machine: Machine) -> Finding:
    if gate := numpy_gate(library, package_version("numpy") or "0"):
        what, _, fix = gate.partition(": ")
        return Finding("problem", what, fix)
    finding = check_library(library, machine)
    if finding.state != "ok":
        return finding
    if gate := version_gate(library, finding.detail, machine.processor):
        what, _, fix = gate.partition(": ")
        return Finding("note", what, fix)
    return Finding("ok", f"{library.name} {finding.detail}: {kind.runs}")


def _installed(kind: EngineKind) -> list[Library]:
    return [library for library in kind.libraries if is_installed(library)]


def check_converter(machine: Machine) -> Finding:
    """Report by package metadata whether models can be converted here."""
    names = ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx")
    versions = {name: number for name in names if (number := package_version(name))}
    missing = {"keras", "tf2onnx", "onnx"} - set(versions)
    if missing or not any(name.startswith("tensorflow") for name in versions):
        detail = "not installed; not needed to run models"
        return Finding("ok", detail, f"{install('convert')} where models are converted")
    return Finding("ok", ", ".join(f"{name} {number}" for name, number in versions.items()))


def check_sandbox(machine: Machine) -> Finding:
    """Tell whether conversions can be held to their own files, without a network."""
    missing = sandbox.unsupported()
    if not missing:
        return Finding("ok", "conversions get no network and their own files alone")
    detail = "; ".join(f"{what} not held back: {reason}" for what, reason in missing.items())
    fix = "convert files of strangers in a container or a virtual machine, or on a newer Linux"
    return Finding("note", f"conversions are not confined: {detail}", fix)


CHECKS: dict[str, Callable[[Machine], Finding]] = {
    "kedge": check_kedge,
    "numpy": partial(check_library, NUMPY),
    **{name: partial(check_engine, name) for name in ENGINES},
    "processor": hardware.processor,
    "memory": hardware.memory,
    "temperature": hardware.temperature,
    "clock": hardware.clock,
    "camera": hardware.camera,
    "coral": hardware.coral,
    "converter": check_converter,
    "sandbox": check_sandbox,
    "security": check_holes,
}


def examine(machine: Machine | None = None) -> dict[str, Finding]:
    """Run every check; a check that raises becomes a finding."""
    return {name: _guarded(check, machine or Machine()) for name, check in CHECKS.items()}


def runnable(findings: dict[str, Finding]) -> dict[str, list[str]]:
    """Return the engines that can run each format; none without numpy and OpenCV."""
    formats = sorted({name for kind in ENGINES.values() for name in kind.formats}, reverse=True)
    if "problem" in {findings["numpy"].state, findings["opencv"].state}:
        return {format: [] for format in formats}
    ready = [name for name in ENGINES if findings[name].state == "ok"]
    return {format: [n for n in ready if format in ENGINES[n].formats] for format in formats}


def try_import(library: Library) -> Trial:
    """Import a library in a separate process, with this process's search path."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import importlib; "
        f"module = importlib.import_module({library.module!r}); "
        "print('kedge', getattr(module, '__version__', ''))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial(reason=f"its import takes more than {TIMEOUT} s")
    except OSError as error:
        return Trial(reason=f"can't be tried: {error}")
    if done.returncode:
        return Trial(reason=_reason(done.returncode, done.stderr))
    imported = done.stdout.splitlines()[-1].partition("kedge ")[2]
    return Trial(imported or package_version(library.package) or "version unknown")


def cure(reason: str, library: Library) -> str:
    """Return what to do about a failed import."""
    fix = next((fix for pattern, fix in CURES.items() if re.search(pattern, reason)), REINSTALL)
    return fix.format(package=library.package)


def _reason(code: int, stderr: str) -> str:
    if code < 0:
        return f"its import ends with {signal.Signals(-code).name}"
    return (stderr.strip().splitlines() or ["its import fails without a message"])[-1]


def _guarded(check: Callable[[Machine], Finding], machine: Machine) -> Finding:
    # One broken check must not hide the findings of the others.
    try:
        return check(machine)
    except Exception as error:
        return Finding("note", f"can't be checked: {type(error).__name__}: {error}")


def _system(machine: Machine) -> str:
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', machine.read("etc/os-release"), re.MULTILINE)
    name = release[1] if release else platform.system()
    return f"{name}, {machine.processor}"
