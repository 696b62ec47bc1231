"""A virtual environment of another processor, run by QEMU: no root, no chroot, no binfmt.

    python tools/emulated_root.py arm64 DIR [--release trixie]

makes DIR as `python -m venv` would, with the kedge wheel built here from the tree, and prints the
path of its Python, beside which lies `kedge`. What doesn't change (the emulator, Debian's Python,
the wheels of the device install) is made once, in KEDGE_CACHE or ~/.cache/kedge. apt and pip fetch
it from where this machine's configuration says, Debian from KEDGE_DEBIAN_MIRROR if that is set.

Exit code 69 (EX_UNAVAILABLE) and one line on stderr where that can't be had; 1 for a fault.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

import emulated_machines
import pin
from emulated_machines import PROCESSORS, RELEASES, Processor

TREE = Path(__file__).resolve().parent.parent
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class UnavailableError(Exception):
    """Emulation can't be had on this machine; the message says why."""


APT = {
    "APT::Install-Recommends": "false",
    "APT::Sandbox::User": "root",
    "APT::Update::Error-Mode": "any",  # else a mirror that can't be reached is only a warning
    "Acquire::Languages": "none",
    "Acquire::http::Timeout": "30",  # seconds
    "Dir::Etc::sourceparts": "/dev/null",
}

# What Python and the wheels load beside the C library; base-files has /etc/os-release.
PACKAGES = ("base-files", "python3", "libstdc++6", "libgcc-s1", "zlib1g")
# Nothing under the root may stand before the host's own.
LEFT_OUT = ("dev", "home", "proc", "root", "run", "sys", "tmp", "var", "usr/share/doc")
# Since trixie the first has a link to the program, which the second has.
EMULATORS = ("qemu-user-static_", "qemu-user_")
MERGED = ("bin", "lib", "sbin")  # links into usr/, which a package of their own makes


@dataclass(frozen=True)
class Root:
    """What one root is made of; its name in the cache changes with it, and with these scripts.

    `wheels`: lines of constraints.txt, each a version and its hashes.
    """

    processor: Processor
    release: str
    wheels: tuple[str, ...]

    @property
    def python(self) -> str:
        """Its Python's version, such as 3.11."""
        return RELEASES[self.release].python

    @property
    def name(self) -> str:
        """A folder's name."""
        made_by = b"".join(
            Path(each).read_bytes() for each in (__file__, emulated_machines.__file__)
        )
        digest = hashlib.sha256(made_by + repr(self).encode()).hexdigest()
        return f"{self.processor.debian}-{self.release}-{digest[:12]}"


def main() -> int:
    """Make the environment; print its Python, or why there can't be one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("processor", choices=PROCESSORS)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--release", choices=RELEASES, default="bookworm")
    asked = parser.parse_args()
    processor = PROCESSORS[asked.processor]
    root = Root(processor, asked.release, requirements(processor, asked.release))
    try:
        print(environment(root, cached(root), asked.folder.absolute()))
    except UnavailableError as error:
        print(f"no emulation of {asked.processor} here: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))}\n{error.stderr}", file=sys.stderr)
        return 1
    return 0


def requirements(processor: Processor, release: str) -> tuple[str, ...]:
    """Return the pins of the device install, its markers read for that machine."""
    python = RELEASES[release].python
    there = {
        "platform_machine": processor.machine,
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    found = []
    for line in pin.section_text(["device"]).replace(" \\\n", "").splitlines():
        text, *hashes = line.split(" --hash=")
        wanted = Requirement(text) if text else None
        if wanted is None or wanted.name in processor.provides:
            continue
        if wanted.marker is None or wanted.marker.evaluate(there):
            held = "".join(f" --hash={each.strip()}" for each in hashes)
            found.append(f"{wanted.name}{wanted.specifier}{held}")
    return tuple(found)


def cache_folder() -> Path:
    """Return where results are kept: by default where `kedge build` keeps its own."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KEDGE_CACHE") or Path(home) / "kedge")


def cached(root: Root) -> Path:
    """Return the root's folder, made if it isn't there yet. Raises UnavailableError."""
    roots = cache_folder() / "roots"
    roots.mkdir(parents=True, exist_ok=True)
    place = roots / root.name
    with _locked(place.with_suffix(".lock")):
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=roots, prefix=".making-") as folder:
                made = Path(folder, root.name)
                _make(root, made, Path(folder, "apt"))
                made.rename(place)
    return place


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(root: Root, folder: Path, scratch: Path) -> None:
    system = folder / "system"
    for name in MERGED:
        (system / "usr" / name).mkdir(parents=True)
        (system / name).symlink_to(f"usr/{name}")
    for package in _packages(root, scratch):
        if package.name.startswith(EMULATORS):
            _unpack(
                package, folder / "host", ["--wildcards", f"./usr/bin/qemu-{root.processor.qemu}*"]
            )
        elif not package.name.startswith("qemu"):
            _unpack(package, system, [f"--exclude=./{name}" for name in LEFT_OUT])
    for name, target in root.processor.links:
        (system / "usr/lib" / name).symlink_to(target)
    _write_cpuinfo(root.processor, system)
    _install(root, folder / "wheels")


def _packages(root: Root, scratch: Path) -> list[Path]:
    """Let apt fetch, below `scratch`, what the root needs, its signatures checked."""
    if not shutil.which("apt-get"):
        raise UnavailableError("it has no apt-get, which fetches the emulator and Debian's Python")
    if not KEYRING.is_file():
        raise UnavailableError(f"{KEYRING} is missing: apt install debian-archive-keyring")
    environment = os.environ | {"APT_CONFIG": str(_apt_config(root, scratch))}
    names = (*PACKAGES, f"libpython{root.python}-stdlib", *root.processor.packages)
    there = [f"{name}:{root.processor.debian}" for name in names]
    try:
        _run(["apt-get", "-qq", "update"], environment)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"apt can't fetch: {_last(error.stderr)}") from None
    _run(["apt-get", "-qq", "install", "--download-only", *there, "qemu-user-static"], environment)
    return sorted((scratch / "archives").glob("*.deb"))


def _apt_config(root: Root, scratch: Path) -> Path:
    """Write the configuration of an apt of its own, which knows one mirror and no system."""
    for name in ("lists/partial", "archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    source = f"deb [signed-by={KEYRING}] {_mirror()} {root.release} main\n"
    (scratch / "sources.list").write_text(source)
    host = _run(["dpkg", "--print-architecture"]).strip()
    options = APT | {
        "APT::Architectures": f"{host},{root.processor.debian}",
        "Dir::State": str(scratch),
        "Dir::State::status": str(scratch / "status"),
        "Dir::Cache": str(scratch),
        "Dir::Etc::sourcelist": str(scratch / "sources.list"),
    }
    config = scratch / "apt.conf"
    config.write_text("".join(f'{name} "{value}";\n' for name, value in options.items()))
    return config


def _mirror() -> str:
    """Return where Debian comes from on this machine."""
    if mirror := os.environ.get("KEDGE_DEBIAN_MIRROR"):
        return mirror
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    mirrors = [line for line in listed.splitlines() if line.rstrip("/").endswith("/debian")]
    if not mirrors:
        raise UnavailableError("apt knows no mirror of Debian: name one in KEDGE_DEBIAN_MIRROR")
    return mirrors[0]


def _unpack(package: Path, folder: Path, options: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    archive = package.with_suffix(".tar")
    with archive.open("wb") as file:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=file, check=True)
    _run(["tar", "-xf", archive, "--keep-directory-symlink", "-C", folder, *options])
    archive.unlink()


def _write_cpuinfo(processor: Processor, system: Path) -> None:
    # QEMU before 8.1 shows the host's, in which XNNPACK and onnxruntime look for an Arm core, find
    # none, and crash. A file below the root stands before it.
    cores = [f"processor\t: {n}\n{processor.cpuinfo}\n" for n in range(os.cpu_count() or 1)]
    (system / "proc").mkdir()
    (system / "proc" / "cpuinfo").write_text("".join(cores))


def _install(root: Root, folder: Path) -> None:
    """Install the wheels of the device install, each held to its hash."""
    machine, glibc = root.processor.machine, RELEASES[root.release].glibc
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(17, glibc + 1)]
    options = ["--only-binary", ":all:", "--python-version", root.python]
    for tag in (*tags, f"manylinux2014_{machine}"):
        options += ["--platform", tag]
    # The pins are the whole closure, but for what Debian provides, of which pip can't be told.
    options += ["--no-deps", "--require-hashes"]
    pins = folder.with_name("pins.txt")
    pins.write_text("\n".join(root.wheels))
    try:
        _pip([*options, "--target", folder, "-r", pins])
    except subprocess.CalledProcessError as error:
        if "Retrying" in error.stderr:  # pip's word for an index that doesn't answer
            raise UnavailableError(f"pip can't fetch: {_last(error.stderr)}") from None
        raise


def environment(root: Root, place: Path, folder: Path) -> Path:
    """Make a virtual environment on a root, with kedge as it is in the tree; return its Python."""
    site = folder / f"lib/python{root.python}/site-packages"
    site.mkdir(parents=True, exist_ok=True)
    (site / "wheels.pth").write_text(f"{place / 'wheels'}\n")
    emulator = place / f"host/usr/bin/qemu-{root.processor.qemu}-static"
    system_python = place / f"system/usr/bin/python{root.python}"
    (folder / "pyvenv.cfg").write_text(
        f"home = {system_python.parent}\ninclude-system-site-packages = true\n"
    )
    python = folder / "bin" / "python"
    # Its own name goes to the emulated Python too, so that sys.executable can be called again.
    _write_script(
        python,
        f'export QEMU_CPU="${{QEMU_CPU:-{root.processor.cpu}}}"\n'
        f'exec "{emulator}" -L "{place}/system" -0 "{python}" "{system_python}" "$@"\n',
    )
    _write_script(python.with_name("kedge"), f'exec "{python}" -m kedge_runtime.cli "$@"\n')
    _install_kedge(site)
    return python


def _write_script(path: Path, lines: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}")
    path.chmod(0o755)


def _install_kedge(site: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder])
        (wheel,) = Path(folder).glob("*.whl")
        _pip(["--no-deps", "--no-index", "--upgrade", "--target", site, wheel])


def _pip(arguments: Sequence[str | Path]) -> None:
    _run([sys.executable, "-m", "pip", "install", "--quiet", *arguments])


def _run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    """Run a command in the tree and return its stdout. Raises CalledProcessError."""
    done = subprocess.run(
        command, cwd=TREE, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no word"])[-1]


if __name__ == "__main__":
    sys.exit(main())
