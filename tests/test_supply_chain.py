"""Dependencies: known holes, pins with hashes, pinned actions, the bill of materials."""

import hashlib
import json
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pin
from kedge_runtime.checks import doctor
from kedge_runtime.checks.doctor import HOLES, check_holes, holes_in
from kedge_runtime.checks.hardware import Machine
from kedge_runtime.errors import DISTRIBUTION

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PROCESSORS = ("x86_64", "aarch64", "armv7l")

# The last published version with each hole; the bounds must exclude it.
LAST = {
    ("opencv-python-headless", "4.8.1.78"): "4.8.0.76",
    ("opencv-python-headless", "4.12.0.88"): "4.11.0.86",
    ("onnxruntime", "1.28"): "1.27.0",
    ("onnx", "1.21"): "1.20.1",
    ("keras", "3.12.4"): "3.12.3",
    ("keras", "3.15.1"): "3.15.0",
    ("tensorflow", "2.21"): "2.20.0",
    ("pillow", "12.3"): "12.2.0",
    ("jinja2", "3.1.6"): "3.1.5",
    ("cryptography", "46.0.7"): "46.0.6",
}
# For Python 3.10 there is no newer one; kedge refuses external data itself.
EXCUSED = {("onnxruntime", "3.10")}


def _requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(each) for each in chain(PROJECT["dependencies"], *extras)]


@pytest.mark.parametrize("python", PYTHONS)
def test_no_lower_bound_admits_a_known_hole(python: str) -> None:
    there = {"python_version": python, "platform_machine": "x86_64"}
    for requirement in _requirements():
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate(there)
        if not applies or (name, python) in EXCUSED:
            continue
        for hole in (hole for hole in HOLES if hole.package == name):
            assert not requirement.specifier.contains(LAST[name, hole.fixed]), (requirement, hole)


@pytest.mark.parametrize("key", LAST)
def test_the_last_version_with_a_hole_is_found_and_the_fixed_one_is_not(
    key: tuple[str, str],
) -> None:
    name, fixed = key
    (found,) = holes_in({name: LAST[key]})
    assert (found.package, found.fixed) == key
    assert holes_in({name: fixed}) == []
    assert Version(LAST[key]) < Version(fixed)


@pytest.mark.parametrize(
    ("name", "version", "count"),
    [
        ("opencv-python", "4.9.0.80", 0),
        ("opencv-python", "4.10.0.84", 1),
        ("keras", "3.14.1", 1),
        ("protobuf", "6.31.1", 1),
        ("protobuf", "5.29.6", 0),
        ("onnx", "1.21.0rc1", 0),
        ("unheard-of", "0.1", 0),
    ],
)
def test_a_hole_is_found_by_its_versions(name: str, version: str, count: int) -> None:
    assert len(holes_in({name: version})) == count


def test_the_security_page_names_every_hole() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "CVE" in line]
    rows += [line for line in page.splitlines() if line.startswith("| onnxruntime |")]
    for hole in HOLES:
        if hole.package in doctor.OPENCV[1:] or hole.package in ("tensorflow-cpu", "cryptography"):
            continue  # other names of one package, and no file of a stranger
        (row,) = [row for row in rows if row.split()[1] == hole.package]
        assert set(re.findall(r"CVE-\d+-\d+", hole.why)) <= set(re.findall(r"CVE-\d+-\d+", row))
        assert hole.fixed in row or hole.since in row, (hole, row)


def test_doctor_says_what_to_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    # The function that reads pip's list; what it says of a real one is in the test below.
    monkeypatch.setattr(
        doctor, "_installed_versions", lambda: {"onnx": "1.20.0", "pillow": "13.0.0"}
    )
    found = check_holes(Machine())
    assert (found.state, found.fix) == ("note", "pip install --upgrade 'onnx>=1.21'")
    assert "onnx 1.20.0: reads files outside" in found.detail


def test_doctor_reads_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in {"onnx": "1.20.0", "keras": "3.15.0"}.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = check_holes(Machine())
    assert found.state == "note"
    assert {"'onnx>=1.21'", "'keras>=3.15.1'"} <= set(found.fix.split())


def sections() -> dict[str, list[Requirement]]:
    """Return the pins by section; each must have hashes."""
    found: dict[str, list[Requirement]] = {}
    for line in PINS.replace(" \\\n", " ").splitlines():
        if line.startswith("# ") and line[2:] in pin.SECTIONS:
            found[line[2:]] = []
        elif line and not line.startswith("#"):
            text, *hashes = line.split(" --hash=")
            assert hashes, line
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", each) for each in hashes), line
            found[list(found)[-1]].append(Requirement(text))
    return found


def test_each_pin_is_one_version_with_hashes_and_nothing_else() -> None:
    found = sections()
    assert tuple(found) == pin.SECTIONS
    for requirement in chain(*found.values()):
        (only,) = requirement.specifier
        assert only.operator == "=="
    assert "://" not in PINS


@pytest.mark.parametrize("machine", PROCESSORS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_are_one_version_for_each_machine(python: str, machine: str) -> None:
    there = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "platform_machine": machine,
        "sys_platform": "linux",
        "implementation_name": "cpython",
    }
    chosen: dict[str, set[str]] = {}
    for requirement in chain(*sections().values()):
        if requirement.marker is None or requirement.marker.evaluate(there):
            name = canonicalize_name(requirement.name)
            chosen.setdefault(name, set()).add(str(requirement.specifier))
    assert {name: found for name, found in chosen.items() if len(found) > 1} == {}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        if requirement.marker is None or requirement.marker.evaluate(there):
            (found,) = chosen[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(found.removeprefix("=="))


def test_no_pin_has_a_known_hole() -> None:
    for requirement in chain(*sections().values()):
        name = canonicalize_name(requirement.name)
        found = holes_in({name: str(requirement.specifier).removeprefix("==")})
        # Python 3.10's onnxruntime, as above.
        assert found == [] or (name, str(requirement.marker)) == (
            "onnxruntime",
            'python_full_version < "3.11"',
        )


def test_the_sections_of_the_makefile_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^(?:CONVERT|DEV) := (.*)$", makefile, flags=re.MULTILINE)
    words = " ".join(named).replace("$(CONVERT)", "").split()
    assert "convert" in words
    assert set(words) <= set(pin.SECTIONS)


def test_pip_takes_the_sections_of_the_makefile(tmp_path: Path) -> None:
    """What awk cuts out is what the tool wrote, and pip reads it as pins with hashes."""
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", ".venv/.convert"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (awk,) = [line for line in done.stdout.splitlines() if line.startswith("awk")]
    command = re.sub(r"> \S+", f"> {tmp_path / 'pins.txt'}", awk)
    subprocess.run(["sh", "-c", command], cwd=ROOT, check=True)
    text = (tmp_path / "pins.txt").read_text()
    assert "tensorflow==" in text
    assert "pytest==" not in text
    wanted = list(chain(*(sections()[name] for name in ("device", "onnx", "convert", "build"))))
    assert len(re.findall(r"^\S+==", text, flags=re.MULTILINE)) == len(wanted)


ACTIONS = ("action.yml", "docs/ci.md")


@pytest.mark.parametrize("name", ACTIONS)
def test_every_action_is_pinned_by_its_commit(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        owner, _, commit = action.partition("@")
        if owner.startswith("OWNER/"):
            continue  # the reader's own
        assert re.fullmatch(r"[0-9a-f]{40}", commit), action
        assert re.fullmatch(r"\s+# v\d+(\.\d+)*", comment), action


def test_the_bill_of_materials_lies_beside_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="needs keras-kedge[release]")
    command = [sys.executable, str(ROOT / "tools/sbom.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    bill = json.loads((tmp_path / f"{wheel.name}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    about = bill["metadata"]["component"]
    assert (about["name"], about["version"]) == (DISTRIBUTION, PROJECT_VERSION)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert about["hashes"] == [{"alg": "SHA-256", "content": digest}]
    parts = {str(canonicalize_name(part["name"])): part for part in bill["components"]}
    pinned = sections()
    wanted = chain(*(pinned[name] for name in ("device", "signing", "onnx", "convert")))
    assert set(parts) == {canonicalize_name(each.name) for each in wanted}
    assert all("pytest" not in name for name in parts)
    assert "hashes" in json.dumps(parts["numpy"])


(PROJECT_VERSION,) = re.findall(
    r'__version__ = "(.*)"', (ROOT / "runtime/kedge_runtime/__init__.py").read_text()
)
