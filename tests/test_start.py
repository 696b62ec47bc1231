"""Starting kedge costs little more than a bare script: CPU time of whole processes, in pairs."""

import os
import statistics
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import pytest

from kedge_runtime.artefact.contract import Label
from kedge_runtime.blas import one_blas_thread
from kedge_runtime.frozen import dataclass

pytest.importorskip("ai_edge_litert")

BARE = """
import sys
import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
with open(sys.argv[2], "rb") as file:
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
pixels = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), tuple(taken["shape"][1:3]))
interpreter.set_tensor(taken["index"], pixels[None].astype(taken["dtype"]))
interpreter.invoke()
print(interpreter.get_tensor(given["index"])[0].argmax())
"""
OPEN = """
import sys
from kedge_runtime import Classifier

print(Classifier.open(sys.argv[1], threads=1)(sys.argv[2]).best.name)
"""
TURNS = 7
# On two quiet cores 1.1 and 1.2 of a real network's script; this network takes no time itself.
MOST = 1.5
# What a single image must not import: each cost more than reading the contract.
UNUSED = (
    *("zipfile", "tempfile", "importlib.metadata", "concurrent.futures", "csv", "numpy.random"),
    "hashlib",
)


def _cpu(command: list[str]) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    path.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes())
    return path


@pytest.mark.parametrize("way", ["Classifier.open", "kedge classify"])
def test_a_process_that_classifies_one_image_costs_little_more_than_a_bare_script(
    way: str, artefacts: Path, image: Path
) -> None:
    words = [str(artefacts / "tiny.tflite"), str(image)]
    command = {
        "Classifier.open": [sys.executable, "-c", OPEN, *words],
        "kedge classify": [sys.executable, "-m", "kedge_runtime.cli", "classify", *words],
    }[way]
    bare = [sys.executable, "-c", BARE, *words]
    ratios = [_cpu(command) / _cpu(bare) for _ in range(1 + TURNS)][1:]
    assert statistics.median(ratios) < MOST, ratios


def test_a_single_image_imports_only_what_it_uses(artefacts: Path, image: Path) -> None:
    code = f"{OPEN}\nprint([name for name in {UNUSED!r} if name in sys.modules])"
    words = [str(artefacts / "tiny.tflite"), str(image)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# What a call of the command must not import besides: the table of all languages, and what lists
# completions.
UNUSED_BY_COMMAND = (*UNUSED, "locale", "click.shell_completion")
COMMAND = """
import sys
import click

before = set(sys.modules)  # up to Python 3.10 click's own import loads the table
from kedge_runtime.cli import main

try:
    main()
finally:
    print([name for name in NAMES if name in sys.modules and name not in before])
"""


def test_a_call_of_the_command_imports_only_what_it_uses(artefacts: Path, image: Path) -> None:
    code = COMMAND.replace("NAMES", repr(UNUSED_BY_COMMAND))
    words = ["classify", str(artefacts / "tiny.tflite"), str(image), "--top", "1"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_blas_threads_are_left_out_for_a_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with one_blas_thread():
        assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    with one_blas_thread():
        assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


@dataclass(frozen=True)
class Record:
    """A record of every kind of field."""

    number: int
    name: str = "x"
    items: list[int] = field(default_factory=list)
    hidden: int = field(default=0, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("below 0")


def test_a_frozen_record_is_a_dataclass_in_every_respect() -> None:
    record = Record(1, items=[2], hidden=3)
    assert repr(record) == "Record(number=1, name='x', items=[2])"
    assert asdict(record) == {"number": 1, "name": "x", "items": [2], "hidden": 3}
    assert [each.name for each in fields(Record)] == ["number", "name", "items", "hidden"]
    assert replace(record, name="y") == Record(1, "y", [2])
    assert record == Record(1, "x", [2]) != Record(2, "x", [2])
    assert Record(1).items is not Record(1).items
    assert hash(Label("a", "b")) == hash(Label("a", "b"))
    assert {Label("a", "b"), Label("a", "b")} == {Label("a", "b")}
    assert list(signature(Record).parameters) == ["number", "name", "items", "hidden"]
    assert signature(Record).parameters["name"].default == "x"


WRONG: dict[str, tuple[tuple[object, ...], dict[str, object], type[Exception]]] = {
    "missing": ((), {}, TypeError),
    "too many": ((1, "x", [], 0, 5), {}, TypeError),
    "unknown": ((1,), {"colour": 1}, TypeError),
    "twice": ((1,), {"number": 2}, TypeError),
    "refused": ((-1,), {}, ValueError),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_frozen_record_refuses_wrong_arguments(case: str) -> None:
    values, named, error = WRONG[case]
    with pytest.raises(error):
        Record(*values, **named)  # type: ignore[arg-type]


def test_a_frozen_record_can_not_be_changed() -> None:
    record = Record(1)
    with pytest.raises(FrozenInstanceError):
        record.number = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del record.name
    assert record == Record(1)
