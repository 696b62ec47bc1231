"""Opening, closing and looking at a classifier, and what it says to a wrong argument."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from kedge_runtime import (
    Classifier,
    EngineError,
    Ensemble,
    KedgeError,
    Rule,
    UsageError,
    read_contract,
)
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.engines import stderr
from kedge_runtime.engines.isolated import Isolated
from test_image_objects import ANYTHING, QUIET, _only_kedge_errors

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnxruntime")
RED = np.full((20, 30, 3), (255, 0, 0), np.uint8)

ENGINES = [("tflite", "litert", False), ("onnx", "onnxruntime", False), ("onnx", "opencv", False)]
ENGINES += [("tflite", "litert", True)]
every_engine = pytest.mark.parametrize(("form", "engine", "isolate"), ENGINES)


@every_engine
def test_a_with_block_closes_the_engine(
    artefacts: Path, form: str, engine: str, isolate: bool
) -> None:
    path = artefacts / f"tiny.{form}"
    with Classifier.open(path, engine=engine, isolate=isolate) as classifier:
        assert classifier(RED).best.name == "red"
    assert repr(classifier).endswith(", closed>")
    for call in (classifier, classifier.probabilities):
        with pytest.raises(EngineError, match="the model is closed; open it again"):
            call(RED)
    classifier.close()  # a second time does no harm
    if isinstance(classifier.engine, Isolated):
        assert classifier.engine._child.process.returncode is not None


def test_an_ensemble_closes_its_members(artefacts: Path) -> None:
    with Ensemble([Classifier.open(artefacts / f"tiny.{f}") for f in ("onnx", "tflite")]) as both:
        assert both(RED).best.name == "red"
    assert all(member.engine.closed for member in both.members)


def test_closing_waits_for_the_runs_of_other_threads(artefacts: Path) -> None:
    classifier, ends = Classifier.open(artefacts / "tiny.tflite", threads=1), list[Exception]()

    def work() -> None:
        try:
            while True:
                classifier(RED)
        except Exception as error:
            ends.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    classifier.close()
    for thread in threads:
        thread.join(30)
    assert [type(end) for end in ends] == [EngineError] * 4


def test_a_classifier_says_what_it_is(artefacts: Path) -> None:
    classifier = Classifier.open(artefacts / "tiny.onnx", threads=2)
    expected = "<Classifier 'tiny.onnx': 8x8 float32, 4 classes, onnxruntime with 2 threads>"
    assert repr(classifier) == expected
    assert repr(Ensemble([classifier])) == f"<Ensemble {expected}>"


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "path": (lambda _: Classifier.open(None), "path is None, expected a path"),  # type: ignore[arg-type]
    "threads": (lambda p: Classifier.open(p, threads="2"), "threads is '2', expected a whole"),  # type: ignore[arg-type]
    "delegate": (lambda p: Classifier.open(p, delegate=3), "delegate is 3, expected"),  # type: ignore[arg-type]
    "null": (lambda p: Classifier.open(p, delegate="a\0.so"), "can't be loaded"),
    "engine": (lambda p: Classifier.open(p, engine=[]), r"engine is \[\], expected"),  # type: ignore[arg-type]
    "contract": (lambda p: Classifier.open(p, contract={}), "contract is {}, expected a Contract"),  # type: ignore[arg-type]
    "key": (lambda p: Classifier.open(p, key=1.5), "key is 1.5, expected"),  # type: ignore[arg-type]
    "min_serial": (lambda p: Classifier.open(p, min_serial="1"), "min_serial is '1', expected"),  # type: ignore[arg-type]
    "top": (lambda p: Classifier.open(p)(RED, top=0), "top is 0, allowed are 1 and more"),
    "top of a text": (lambda p: Classifier.open(p)(RED, top="3"), "top is '3', allowed"),  # type: ignore[call-overload]
    "rule": (lambda p: Classifier.open(p)(RED, rule=0.5), "rule is 0.5, expected a Rule"),  # type: ignore[call-overload]
    "colour": (lambda p: Classifier.open(p)(RED, colour="BGR"), "colour is 'BGR', allowed are rgb"),  # type: ignore[call-overload]
    "each": (lambda p: Classifier.open(p).each("a.png"), "each takes several images, got one str"),
    "members": (lambda _: Ensemble([1]), "give at least one"),  # type: ignore[list-item]
    "limits": (lambda _: Rule(min_confidence=None), "min_confidence is None, allowed are 0 to 1"),  # type: ignore[arg-type]
    "text": (lambda _: Rule(threshold="0.5"), "threshold is '0.5', allowed are 0 to 1"),  # type: ignore[arg-type]
    "facts": (lambda _: read_contract(b"facts.json"), "path is b'facts.json', expected a path"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_one_line(artefacts: Path, name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises((UsageError, EngineError), match=message):
        call(artefacts / "tiny.tflite")


def test_numbers_of_numpy_are_numbers(artefacts: Path) -> None:
    classifier = Classifier.open(artefacts / "tiny.tflite", threads=np.int64(1))  # type: ignore[arg-type]
    assert len(classifier(RED, top=np.int32(2)).predictions) == 2  # type: ignore[call-overload]
    assert classifier(RED, rule=Rule(np.float32(0.0))).label == "red"  # type: ignore[arg-type]


@given(value=ANYTHING, other=ANYTHING)
@QUIET
def test_only_errors_of_kedge_leave_the_openers(artefacts: Path, value: Any, other: Any) -> None:
    path = artefacts / "tiny.onnx"
    _only_kedge_errors(Classifier.open, value)
    for name in ("delegate", "engine", "contract", "key", "min_serial"):
        _only_kedge_errors(Classifier.open, path, **{name: value})
    if not isinstance(value, int) or isinstance(value, bool):
        _only_kedge_errors(Classifier.open, path, threads=value)
    _only_kedge_errors(Ensemble, value)
    _only_kedge_errors(Rule, value, other)
    _only_kedge_errors(read_contract, value, other)


def test_the_errors_are_those_of_kedge() -> None:
    with pytest.raises(TypeError):
        _only_kedge_errors(Classifier.open)
    with pytest.raises(KedgeError):
        Classifier.open("")


def test_litert_says_nothing_on_stderr(artefacts: Path) -> None:
    code = (
        "import sys\nfrom kedge_runtime import Classifier\n"
        "classifier = Classifier.open(sys.argv[1])\nclassifier(bytes.fromhex(sys.argv[2]))"
    )
    image = _bmp().hex()
    command = [sys.executable, "-W", "ignore", "-c", code, artefacts / "tiny.tflite", image]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _bmp() -> bytes:
    import cv2

    return cv2.imencode(".bmp", RED)[1].tobytes()


def test_other_lines_stay_in_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="out"), stderr.without(b"INFO: hush\n"):
        os.write(2, b"ERROR: real\nINFO: hush\nINFO: hush, more\n")
        raise ValueError("out")
    with stderr.without(b"INFO: hush\n"):
        os.write(2, b"INFO: hush\nno newline")
    assert capfd.readouterr().err == "ERROR: real\nINFO: hush, more\nno newline"


def test_threads_that_open_at_once_leave_stderr_alone(
    artefacts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = artefacts / "tiny.tflite"
    before = os.fstat(2).st_ino
    threads = [threading.Thread(target=Classifier.open, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert os.fstat(2).st_ino == before
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_a_closed_stderr_is_no_error(artefacts: Path) -> None:
    code = (
        "import os, sys\nos.close(2)\nfrom kedge_runtime import Classifier\n"
        "print(Classifier.open(sys.argv[1]).classes.labels[0].name)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(artefacts / "tiny.tflite")]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"red\n"


def test_a_contract_is_public_all_the_way(contracts: dict[str, Contract]) -> None:
    assert Contract.from_json(contracts["onnx"].to_json()) == contracts["onnx"]
