"""Where everything is installed a skip is a failure, and a test that hangs ends."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import skips
from conftest import SLOW, TESTS
from skips import MAY_SKIP, VARIABLE

CONFTEST = "from skips import pytest_make_collect_report, pytest_runtest_makereport\n"
MISSING = "import pytest\npytest.importorskip('no_such_extra')\ndef test(): pass\n"
INSIDE = "import pytest\ndef test(): pytest.importorskip('no_such_extra')\n"
ALLOWED = "import pytest\ndef test(): pytest.skip('no systemd-analyze')\n"


def run(folder: Path, text: str, *options: str, ci: bool) -> "subprocess.CompletedProcess[str]":
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_one.py").write_text(text)
    around = {name: value for name, value in os.environ.items() if name != VARIABLE}
    around |= {"PYTHONPATH": str(Path(skips.__file__).parent)} | ({VARIABLE: "1"} if ci else {})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command, cwd=folder, env=around, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("text", [MISSING, INSIDE])
def test_a_missing_extra_fails_there_and_is_skipped_elsewhere(tmp_path: Path, text: str) -> None:
    ci, elsewhere = run(tmp_path, text, ci=True), run(tmp_path, text, ci=False)
    assert ci.returncode in (1, 2)
    assert "no_such_extra" in ci.stdout and "skips.py" in ci.stdout
    assert "1 skipped" in elsewhere.stdout


def test_what_may_be_skipped_is(tmp_path: Path) -> None:
    assert "1 skipped" in run(tmp_path, ALLOWED, ci=True).stdout


def test_processes_tell_the_same(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    done = run(tmp_path, INSIDE, "-n", "2", ci=True)
    assert done.returncode == 1 and "1 failed" in done.stdout


def test_each_reason_says_why() -> None:
    assert all(MAY_SKIP.values())


@pytest.mark.skipif(not find_spec("pytest_timeout"), reason="could not import 'pytest_timeout'")
def test_a_test_that_hangs_ends(tmp_path: Path) -> None:
    text = "import threading\ndef test(): threading.Event().wait()\n"
    done = run(tmp_path, text, "-o", "timeout=1", ci=False)
    assert done.returncode == 1 and "Timeout" in done.stdout


def test_every_slow_test_exists() -> None:
    """A test that was renamed would run in `make test`, whatever it takes."""
    listed = [line for line in SLOW if line and not line.startswith("#")]
    texts = {path.name: path.read_text() for path in TESTS.glob("test_*.py")}
    missing = [
        line
        for line in listed
        if f"def {line.partition('::')[2]}(" not in texts.get(line.partition("::")[0], "")
    ]
    assert not missing
