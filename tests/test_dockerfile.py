"""The Dockerfile's steps, as far as they run without Docker: a daemon is seldom where tests run.

The pins that it cuts out are those of the Makefile, whose install every run of `make` does.
"""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pin

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = re.findall(r"^([A-Z]+) (.*)$", TEXT, flags=re.MULTILINE)
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()


def values(instruction: str) -> list[str]:
    return [value.strip() for name, value in STEPS if name == instruction]


def copied() -> list[str]:
    """Return the files and folders that are copied from the repository."""
    return [source for value in values("COPY") for source in value.split()[:-1]]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    assert IGNORED[0] == "*"
    allowed = [line[1:] for line in IGNORED if line.startswith("!")]
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source
    assert set(allowed) == set(copied())


def test_the_pins_are_those_of_the_sections(tmp_path: Path) -> None:
    (cut,) = re.findall(r"(awk .*) > pins.txt", values("RUN")[0])
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    done = subprocess.run(cut, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    pins = done.stdout
    sections = [name for name in pin.SECTIONS if name in cut.split('"')[1].split()]
    assert {"device", "onnx", "convert", "build"} <= set(sections)
    for line in pin.section_text(sections).splitlines():
        assert line in pins
    assert "pytest==" not in pins


def test_what_is_copied_makes_the_wheel(tmp_path: Path) -> None:
    for source in copied():
        if (ROOT / source).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, tmp_path / source, ignore=ignore)
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "dist").glob("*.whl"))) == 1


def test_the_container_runs_kedge_and_is_not_root() -> None:
    assert values("USER") == ["1000"]
    assert json.loads(values("ENTRYPOINT")[0]) == ["kedge"]
    assert [step for step in values("RUN") if "pip install" in step] == values("RUN")
    assert all("--require-hashes" in step or "--no-deps" in step for step in values("RUN"))


def test_hadolint_has_no_complaint() -> None:
    if not (lint := shutil.which("hadolint")):
        pytest.skip("no hadolint on PATH")
    done = subprocess.run([lint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
