"""The doors' fuzzers, few inputs of each: a typed error or a result, whatever the bytes.

`make fuzz` feeds millions (docs/testing.md).
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from conftest import TESTS
from fuzz.corpus import SEED
from fuzz.doors import DOORS
from fuzz.findings import shrink

pytest.importorskip("PIL")
pytest.importorskip("flatbuffers")


def _json(*command: object) -> Any:
    around = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), *sys.path]))}
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=around)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def failures() -> dict[str, list[str]]:
    """Return what the corpus shows, by door; the shared folder's files are a part where it is."""
    hostile = Path(os.environ.get("KEDGE_SHARED", TESTS.parent.parent / "shared")) / "data/hostile"
    found = defaultdict(list)
    for failure in _json("-m", "fuzz.corpus", *([hostile] if hostile.is_dir() else [])):
        found[failure["door"]].append(f"{failure['source']}: {failure['fault']}")
    return found


@pytest.mark.parametrize("name", DOORS)
def test_a_door_gives_a_result_or_a_typed_error(name: str, failures: dict[str, list[str]]) -> None:
    assert failures[name] == []


def test_the_same_seed_makes_the_same_inputs() -> None:
    for name, door in DOORS.items():
        made = [door.make(name, SEED, number) for number in range(20)]
        assert made == [door.make(name, SEED, number) for number in range(20)]
        assert len(set(made)) > 10


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the fuzzer sees of bad doors."""
    found: dict[str, Any] = _json(
        TESTS / "helpers" / "bad_doors.py", tmp_path_factory.mktemp("findings")
    )
    return found


@pytest.mark.parametrize(
    ("name", "kind", "where"),
    [
        ("dies", "crash", "SIGSEGV"),
        ("hangs", "hang", "Hang bad_doors.py"),
        ("holds", "memory", "resident"),
        ("asks", "memory", "MemoryError bad_doors.py"),
        ("starves", "memory", "KedgeError bad_doors.py"),
        ("raises", "traceback", "ZeroDivisionError bad_doors.py"),
    ],
)
def test_every_kind_of_fault_is_seen(bad: dict[str, Any], name: str, kind: str, where: str) -> None:
    for found in (bad[name]["batch"][0], bad[name]["alone"]):
        assert (found[0], where in found[1]) == (kind, True)
    assert f"make fuzz DOOR='{name}' INPUT=" in bad[name]["said"]


def test_what_is_allowed_is_no_fault(bad: dict[str, Any]) -> None:
    assert bad["refuses"] == {"batch": [], "alone": None}


def test_a_finding_shrinks_to_what_shows_it(bad: dict[str, Any]) -> None:
    assert bad["letters"]["file"] == "gd"


def test_shrinking_ends_after_its_trials() -> None:
    tried = []

    def shows(content: bytes) -> bool:
        tried.append(content)
        return False

    assert shrink(bytes(999), shows, trials=10) == bytes(999)
    assert len(tried) == 10
