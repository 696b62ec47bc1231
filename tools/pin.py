"""Write constraints.txt: every package that kedge's installs bring, its version and hashes.

    python tools/pin.py [--upgrade]

resolves pyproject.toml with uv for each Python and processor at once. What is pinned stays where
it still fits, unless --upgrade is given. The packages stand in sections, one for each install; a
section has what the sections above it lack, so `make` installs the sections that it needs.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
PINS = TREE / "constraints.txt"

# The sections in their order: an extra each, but for the device install and the build backend.
DEVICE, BUILD = "device", "build"
SECTIONS = (
    DEVICE,
    "signing",
    "onnx",
    "convert",
    BUILD,
    "mqtt",
    "serve",
    "distributed",
    "dev",
    "ethos-u",
    "release",
    "benchmarks",
    "hub",
)
OLDEST_PYTHON = "3.10"
HEAD = """\
# Written by tools/pin.py (`make pins`): Linux, CPython 3.10 to 3.13, every processor with wheels.
# The section `device` also installs on 3.14 (docs/install.md).
# A section has what its install brings beyond the sections above it.
"""

# `[tool.uv] environments` of pyproject.toml, which uv repeats in each marker.
_EVERYWHERE = re.compile(
    r"python_full_version < '3\.14'|implementation_name == 'cpython'|sys_platform == 'linux'"
    r"|platform_python_implementation != 'PyPy'"
)
_HASHES = r"(?: \\\n +--hash=\S+)*"
_PIN = re.compile(
    rf"(?P<name>\S+?)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]*?))?(?P<hashes>{_HASHES})\n"
)


def main() -> int:
    """Resolve and write. Returns uv's exit code where it fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="Take the newest versions.")
    upgrade = parser.parse_args().upgrade
    try:
        with tempfile.TemporaryDirectory() as folder:
            PINS.write_text(pinned(Path(folder), upgrade=upgrade), encoding="utf-8")
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return int(error.returncode)
    return 0


def pinned(folder: Path, *, upgrade: bool) -> str:
    """Return the file's text. Raises CalledProcessError when uv finds no versions that fit."""
    everything = folder / "everything.txt"
    everything.write_text("" if upgrade else _without_hashes(PINS.read_text(encoding="utf-8")))
    resolve(SECTIONS, everything)
    text, there = HEAD, set[str]()
    for count, section in enumerate(SECTIONS, 1):
        some = folder / f"{section}.txt"
        some.write_text(_without_hashes(everything.read_text()))
        resolve(SECTIONS[:count], some)
        lines = [line for line in tidy(some.read_text()) if line not in there]
        there.update(lines)
        text += f"\n# {section}\n" + "".join(lines)
    return text


def resolve(sections: Sequence[str], place: Path) -> None:
    """Let uv write the pins of some sections; those in the file are kept where they fit."""
    extras = [f"--extra={name}" for name in sections if name not in (DEVICE, BUILD)]
    backend = place.with_name("backend.in")
    backend.write_text("hatchling\nhatch-fancy-pypi-readme\n")
    sources = ["pyproject.toml", *([str(backend)] if BUILD in sections else [])]
    options = ["--universal", f"--python-version={OLDEST_PYTHON}", "--generate-hashes"]
    options += ["--no-header", "--no-annotate", "--quiet", "--output-file", str(place)]
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *sources, *extras, *options],
        cwd=TREE,
        check=True,
        capture_output=True,
        text=True,
    )


def section_text(sections: Sequence[str]) -> str:
    """Return the pins of some sections of constraints.txt."""
    parts = re.split(r"^# (\S+)\n", PINS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return "".join(found[name] for name in sections)


def tidy(text: str) -> Iterable[str]:
    """Yield each pin with its hashes, its marker without what holds everywhere."""
    for found in _PIN.finditer(text):
        marker = _shortened(found["marker"] or "")
        yield f"{found['name']}=={found['version']}{marker}{found['hashes']}\n"


def _shortened(marker: str) -> str:
    clauses = [part for part in marker.split(" and ") if not _EVERYWHERE.fullmatch(part)]
    # Clauses in brackets are rare, and right as uv wrote them.
    kept = marker if "(" in marker else " and ".join(clauses)
    return f" ; {kept}" if kept else ""


def _without_hashes(text: str) -> str:
    return re.sub(_HASHES, "", text)


if __name__ == "__main__":
    sys.exit(main())
