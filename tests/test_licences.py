"""Everything that kedge installs may be used commercially, and docs/licences.md says so in full."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kedge_runtime.errors import DISTRIBUTION

ROOT = Path(__file__).parents[1]

# Each install of the README, smallest first; "" is the device's.
EXTRAS = (
    *("", "signing", "mqtt", "serve", "onnx", "convert", "distributed"),
    *("dev", "benchmarks", "ethos-u", "hub", "release"),
)

# Permissive, but MPL-2.0: it asks for changes to its own files only, and kedge changes none.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CNRI-Python",
    "HPND",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
}

# What packages write that name no SPDX expression.
SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD License": "BSD",
    # python-dateutil 3: its classifiers name these two.
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
    "UNKNOWN": "",
    # validate-pyproject writes its expression in small letters.
    "MPL-2.0 and MIT and BSD-3-Clause": "MPL-2.0 AND MIT AND BSD-3-Clause",
}

# Metadata that names no licence at all: what the licence file in the wheel begins with.
SILENT = {"namex": ("Apache-2.0", "Licensed under the Apache License, Version 2.0")}


def closure(extra: str) -> dict[str, Distribution]:
    """Return every installed distribution that `keras-kedge[extra]` needs on this machine."""
    found: dict[str, Distribution] = {}
    queue = [Requirement(f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION)]
    while queue:
        wanted = queue.pop()
        name = canonicalize_name(wanted.name)
        if name in found and not wanted.extras:
            continue
        found[name] = installed(name)
        queue.extend(needs(found[name], wanted.extras))
    del found[DISTRIBUTION]
    return found


def needs(package: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in package.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} isn't installed here")


def licence(package: Distribution) -> str:
    """Return the SPDX expression, read from the three places where packages write it."""
    metadata = package.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License ::")
    ]
    fields = ("License-Expression", "License")
    words = [word for field in fields for word in metadata.get_all(field, [])] + classifiers
    # Some put the whole text of the licence into the field that is meant for its name.
    named = (SPELLINGS.get(word, word) for word in words if "\n" not in word)
    given = next(filter(None, named), "")
    if not given and canonicalize_name(package.name) in SILENT:
        return SILENT[canonicalize_name(package.name)][0]
    return given


def is_allowed(expression: str) -> bool:
    """Every part joined by AND must be allowed; of those joined by OR, one."""
    parts = [part.strip("() ").split(" OR ") for part in expression.split(" AND ")]
    return all(ALLOWED.intersection(alternatives) for alternatives in parts)


def rows() -> dict[str, list[list[str]]]:
    """Return the table of the document by package; a package may stand in it in two versions."""
    table: dict[str, list[list[str]]] = {}
    for line in (ROOT / "docs" / "licences.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[4] == "yes":
            table.setdefault(canonicalize_name(cells[0]), []).append(cells)
    return table


def test_the_device_install_brings_at_most_ten_packages() -> None:
    packages = closure("")
    assert {"numpy", "click", "opencv-python-headless", "ai-edge-litert"} <= set(packages)
    assert len(packages) <= 10, sorted(packages)


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_licence_is_on_the_list(extra: str) -> None:
    packages = closure(extra)
    assert "numpy" in packages
    refused = {
        name: licence(package)
        for name, package in packages.items()
        if not is_allowed(licence(package))
    }
    assert refused == {}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_document_lists_every_package_with_its_licence(extra: str) -> None:
    table = rows()
    actual = {name: licence(package) for name, package in closure(extra).items()}
    missing = {
        name: expression
        for name, expression in actual.items()
        if expression not in {cells[3] for cells in table.get(name, [])}
    }
    assert missing == {}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_document_knows_which_install_brings_a_package(extra: str) -> None:
    table = rows()
    order = ("device", *EXTRAS[1:])
    late = [
        name for name in closure(extra) if table[name][0][1] not in order[: EXTRAS.index(extra) + 1]
    ]
    assert late == []


def test_the_document_has_the_pinned_versions() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([^#\s=]+)==(\S+)", text, flags=re.MULTILINE)
    documented = {(name, cells[2]) for name, several in rows().items() for cells in several}
    assert documented == {(canonicalize_name(name), version) for name, version in pins}


@pytest.mark.parametrize("name", sorted(SILENT))
def test_silent_metadata_has_the_licence_in_its_files(name: str) -> None:
    files = [path for path in installed(name).files or () if "LICENSE" in path.name.upper()]
    assert any(SILENT[name][1] in path.read_text() for path in files)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("BSD-3-Clause AND (MIT OR GPL-2.0-only)", True),
        ("MIT AND LGPL-2.1-only", False),
        ("GPL-3.0-or-later", False),
        ("Proprietary", False),
        ("", False),
    ],
)
def test_rule(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed
