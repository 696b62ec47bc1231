"""The end of a command: whatever happens, one line and an exit code that says what it was."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kedge_runtime.printable import LIMIT

pytest.importorskip("ai_edge_litert")

WORDS = "this is a bug in kedge: run again with -v for the traceback"
# What a command of kedge raises -> the line that follows `kedge: internal error: `.
BUGS = {
    "raise ValueError('two\\nlines')": "ValueError: two lines",
    "raise MemoryError": "MemoryError",
    "raise OSError(5, 'odd')": "OSError: [Errno 5] odd",
    "raise BrokenPipeError(32, 'a pipe within')": "BrokenPipeError: [Errno 32] a pipe within",
    "raise EOFError('no more')": "EOFError: no more",
    "raise KeyError('\\x1b[31m')": r"KeyError: '\x1b[31m'",
    "raise UnicodeDecodeError('utf-8', b'a', 0, 1, 'odd')": "UnicodeDecodeError: 'utf-8' codec",
    "f = lambda: f(); f()": "RecursionError: maximum recursion depth exceeded",
    "None.scale": "AttributeError: 'NoneType' object has no attribute 'scale'",
    "raise ImportError('no libGL.so.1')": "ImportError: no libGL.so.1",
    "import kedge_runtime.nothing": "ModuleNotFoundError: No module named 'kedge_runtime.nothing'",
    "raise ValueError('x' * 9000)": "ValueError: xxx",
    "raise WorkerError('in it:\\nTraceback (most recent call last):\\n x\\nTypeError: y')": (
        "WorkerError: TypeError: y"
    ),
}
# A command that fails so, in the place of `kedge models`.
PROGRAM = """
import sys, types
import click
from kedge_runtime import cli
class WorkerError(Exception): pass
@click.command()
def models():
{body}
module = types.ModuleType("broken")
module.models = models
sys.modules["broken"] = module
cli.COMMANDS["models"] = ("broken:models", "")
sys.argv = ["kedge", "models"]
cli.main()
"""


def _ended(
    body: str, *, debug: str | None = None, **more: str
) -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(body=textwrap.indent(body.replace("; ", "\n"), "    "))
    environment = {name: each for name, each in os.environ.items() if name != "KEDGE_DEBUG"}
    environment |= more | ({"KEDGE_DEBUG": debug} if debug else {})
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("body", BUGS)
def test_a_bug_is_one_line_and_exit_code_70(body: str) -> None:
    done = _ended(body)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1), done.stderr
    assert done.stderr.startswith(f"kedge: internal error: {BUGS[body]}")
    assert done.stderr.endswith(f"; {WORDS}\n")
    assert len(done.stderr) < LIMIT + 20


def test_its_traceback_comes_when_it_is_asked_for() -> None:
    done = _ended("None.scale", debug="1")
    assert done.returncode == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(f"; {WORDS}\n")
    assert "Traceback" not in _ended("None.scale", debug="0").stderr


def test_an_error_that_ends_a_thread_is_one_line() -> None:
    work = "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"
    done = _ended(work)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("kedge: internal error: ZeroDivisionError: division by zero; ")


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_process_is_one_line(jobs: int) -> None:
    work = (
        "from kedge_runtime.pool import Pool, executor; import operator; "
        f"held = executor(Pool({jobs})); pool = held.__enter__(); "
        "pool.submit(operator.truediv, 1, 0).result()"
    )
    done = _ended(work)
    assert (done.returncode, done.stderr.count("\n")) == (70, 1), done.stderr
    assert done.stderr.startswith("kedge: internal error: ZeroDivisionError: division by zero; ")


@pytest.mark.parametrize(
    "error", ["PermissionError(13, 'denied', 'a\\nb')", "OSError(36, 'x', 'f')"]
)
def test_a_file_that_the_system_refuses_is_no_bug(error: str) -> None:
    done = _ended(f"raise {error}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr in ("kedge: a\\nb: denied\n", "kedge: f: x\n")


def test_a_folder_that_was_removed_is_no_bug(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = f"{sys.executable} -m kedge_runtime models"
    done = subprocess.run(
        ["bash", "-c", f"cd {gone} && rmdir {gone} && {words}"],
        capture_output=True,
        text=True,
        check=False,
    )
    line = "kedge: the current folder no longer exists; change to another one\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize("end", ["sys.exit(143)", "raise KeyboardInterrupt"])
def test_signals_end_as_before(end: str) -> None:
    done = _ended(f"import sys; {end}")
    assert (done.returncode, done.stderr.strip()) == (143 if "143" in end else 130, "")


# A device has numpy, OpenCV, LiteRT and click; a finder refuses what only the extra installs.
DEVICE = """
import sys
class Refused:
    names = ("tensorflow", "keras", "tf_keras", "tf2onnx", "onnx", "rich", "jinja2", "PIL")
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refused())
from kedge_runtime.cli import main
main()
"""
CONVERTING = (
    ["convert", "demo"],
    ["build"],
    ["fit-input", "demo", "--images", "."],
    ["drift", "m.tflite", "--images", "photos", "--against", "demo"],
)
ON_DEVICE = (
    ["convert", "--help"],
    ["models"],
    ["models", "--json"],
    ["inspect", "m.tflite"],
    ["--help"],
)


def _device(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", DEVICE, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture
def desk(tmp_path: Path, artefacts: Path, pictures: Path, models: dict[str, bytes]) -> Path:
    (tmp_path / "raw.tflite").write_bytes(models["tflite"])
    (tmp_path / "m.tflite").symlink_to(artefacts / "tiny.tflite")
    (tmp_path / "photos").symlink_to(pictures)
    return tmp_path


@pytest.mark.parametrize("words", CONVERTING, ids=" ".join)
def test_the_device_install_names_what_converts(desk: Path, words: list[str]) -> None:
    done = _device(desk, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.endswith("pip install 'keras-kedge[convert]'\n")
    assert "isn't installed" in done.stderr


@pytest.mark.parametrize("words", ON_DEVICE, ids=" ".join)
def test_the_device_install_does_the_rest(desk: Path, words: list[str]) -> None:
    done = _device(desk, *words)
    assert (done.returncode, done.stderr) == (0, "")


# What a device file or a huge value would cost.
COSTLY = {
    "classify m.tflite photos --contract /dev/zero": "kedge: /dev/zero: has more than 64 mib",
    "seal raw.tflite --labels /dev/zero --preprocess tf_resize --normalisation tf --head logits": (
        "label file /dev/zero: has more than 64 MiB"
    ),
    "drift m.tflite --images photos --against m.tflite --truth /dev/zero": "has more than 64 MiB",
    "drift m.tflite --images photos --against m.tflite --jobs 9999999999": "not in the range",
    f"verify m.tflite --threads {10**30}": "allowed are 1 to 1024",
    f"classify m.tflite photos --threads {10**30}": "allowed are 1 to 1024",
    f"bench m.tflite photos --rounds {10**30}": "is not in the range",
    f"drift m.tflite --images photos --against {'x' * 300}": "file name too long",
}


@pytest.mark.parametrize("line", COSTLY)
def test_costly_values_are_usage_errors(desk: Path, line: str) -> None:
    command = ["prlimit", f"--as={4 << 30}", sys.executable, "-m", "kedge_runtime.cli"]
    done = subprocess.run(
        [*command, *line.split()], capture_output=True, text=True, check=False, cwd=desk
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert COSTLY[line] in done.stderr


def test_a_full_stderr_changes_nothing(desk: Path) -> None:
    for line in ("inspect m.tflite", "classify m.tflite photos /none.png"):
        command = [sys.executable, "-m", "kedge_runtime.cli", *line.split()]
        plain = subprocess.run(command, capture_output=True, check=False, cwd=desk)
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=full, check=False, cwd=desk
            )
        assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)


def test_a_library_that_lacks_another_one_is_no_bug() -> None:
    """So ends OpenCV with windows on a system without a desktop."""
    done = _ended("raise ImportError('libGL.so.1: no such file', name='cv2')")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cv2 can't be loaded (libGL.so.1: no such file)" in done.stderr
    assert done.stderr.endswith("pip install --force-reinstall opencv-python-headless\n")
