"""Output whose reader leaves, that the disk refuses, or that the terminal has no signs for."""

import array
import fcntl
import json
import signal
import subprocess
import sys
import termios
import time
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


# Prints numbered lines of a length until SIGTERM, which watch takes as Ctrl-C.
LINES = """
import json, signal, sys
from kedge_runtime.output import echo_page, outputs
signal.signal(signal.SIGTERM, signal.default_int_handler)
with outputs():
    try:
        for number in range(10**6):
            echo_page(json.dumps({"number": number, "text": "x" * int(sys.argv[1])}))
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
"""


@pytest.mark.parametrize("length", [100, 10_000, 300_000])
def test_a_signal_at_a_full_pipe_repeats_nothing_and_cuts_no_line(length: int) -> None:
    command = [sys.executable, "-c", LINES, str(length)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        _wait_until_full(process.stdout.fileno())
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"ended\n")
    assert out.endswith(b"\n")
    numbers = [json.loads(line)["number"] for line in out.splitlines()]
    assert numbers == list(range(len(numbers)))


def _wait_until_full(pipe: int) -> None:
    """Return when nothing more arrives in a pipe that nobody reads."""
    size, before = array.array("i", [0]), -1
    while size[0] == 0 or size[0] != before:
        before = size[0]
        time.sleep(0.3)
        fcntl.ioctl(pipe, termios.FIONREAD, size)
