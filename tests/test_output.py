"""Output whose reader leaves, that the disk refuses, or that the terminal has no signs for."""

import subprocess
import sys
from pathlib import Path

import pytest

import drift_references

pytest.importorskip("ai_edge_litert")

KEDGE = f"'{sys.executable}' -W error -m kedge_runtime.cli"


def _shell(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash in a folder; the exit code is that of the first command of its pipe."""
    line = f"{line.replace('kedge', KEDGE, 1)}; exit ${{PIPESTATUS[0]}}"
    command = ["bash", "-c", line]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Path:
    """Return a folder with an artefact that verify finds at fault, and pictures."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "m.tflite").symlink_to(artefacts / "tiny.tflite")
    (folder / "photos").mkdir()
    drift_references.write_photos(folder / "photos", 9)
    return folder


# A line whose reader has left -> the exit code; no line has more to say.
UNREAD = {
    "kedge classify m.tflite photos/even | true": 0,
    "kedge models | true": 0,
    "kedge --help | true": 0,
    "kedge doctor | true": 0,
    "kedge verify m.tflite | true": 1,
    "kedge verify m.tflite --json | true": 1,
    "kedge verify none.tflite 2>&1 | true": 2,
}


@pytest.mark.parametrize("line", UNREAD)
def test_a_reader_that_leaves_changes_no_verdict(desk: Path, line: str) -> None:
    done = _shell(line, desk)
    assert (done.returncode, done.stderr) == (UNREAD[line], "")


def test_a_sheet_is_drawn_though_nobody_reads_the_words(desk: Path) -> None:
    done = _shell("kedge classify m.tflite photos/even --sheet sheet.png -q | true", desk)
    assert (done.returncode, done.stderr) == (0, "")
    assert (desk / "sheet.png").exists()


# What can't be printed -> what is said.
REFUSED = {
    "kedge verify m.tflite > /dev/full": "stdout can't be written: no space left on",
    "kedge verify m.tflite >&-": "stdout is closed; redirect it to a file or to /dev/null",
    "kedge classify m.tflite photos >&-": "stdout is closed; redirect it to a file or to /dev/null",
    "kedge classify m.tflite - <&-": "no images: stdin has no names",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_can_not_be_printed_is_one_line(desk: Path, line: str) -> None:
    done = _shell(line, desk)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"kedge: {REFUSED[line]}")


def test_without_stderr_stdout_has_the_answer(desk: Path) -> None:
    done = _shell("kedge verify m.tflite 2>&-", desk)
    assert (done.returncode, done.stdout.count("FAILED  ")) == (1, 1)


def test_a_sign_that_stdout_lacks_is_a_question_mark(desk: Path) -> None:
    words = "m.tflite m.tflite photos/even"
    done = _shell(f"PYTHONIOENCODING=latin-1 COLUMNS=40 kedge classify {words}", desk)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout
