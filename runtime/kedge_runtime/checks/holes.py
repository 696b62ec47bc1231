"""Check for library versions with known security holes that untrusted files can reach.

The lower bounds of pyproject.toml exclude them; `kedge doctor` finds those installed otherwise.
Debian fixes the libraries that it packages under their old versions, so they are skipped.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from kedge_runtime.checks.hardware import Finding, Machine
from kedge_runtime.identity import package_version


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
    installed = _installed()
    holes = holes_in(installed)
    if not holes:
        return Finding("ok", f"none known in {len(installed)} packages")
    detail = "; ".join(f"{hole.package} {installed[hole.package]}: {hole.why}" for hole in holes)
    fixed = " ".join(f"'{hole.package}>={hole.fixed}'" for hole in holes)
    return Finding("note", detail, f"pip install --upgrade {fixed}")


def _installed() -> dict[str, str]:
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
