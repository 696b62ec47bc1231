"""An engine in a process of its own answers as the engine does, and its end is one line."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import MODELS, Run
from hostile_models import KINDS, changed
from kedge_runtime.artefact.content import ModelContent, read_content
from kedge_runtime.checks.bench import BenchCase, Plan, measure_apart
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines import isolated
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.engines.isolated import Isolated, open_isolated
from kedge_runtime.errors import DiedError, EngineError
from kedge_runtime.modelfile.check.tflite_shapes import Cost
from kedge_runtime.output import quiet

TINY = MODELS / "tiny.tflite"
ISOLATED = EngineOptions(threads=1, isolate=True)
COST = Cost(1 << 20)


@pytest.fixture(autouse=True)
def engine_is_there() -> None:
    pytest.importorskip("ai_edge_litert.interpreter")


def _hostile() -> ModelContent:
    pytest.importorskip("ai_edge_litert.schema_py_generated")
    change, _ = KINDS["tflite"]["a new shape left out"]
    return ModelContent(Path("m.tflite"), "tflite", changed("tflite", TINY.read_bytes(), change))


def _image() -> "np.typing.NDArray[np.int8]":
    return np.random.default_rng(0).integers(-128, 128, (3, 16, 16, 3)).astype(np.int8)


def test_it_answers_as_the_engine_itself() -> None:
    with quiet():
        plain = open_engine(read_content(TINY), EngineOptions(threads=1))
    engine = open_engine(read_content(TINY), ISOLATED)
    assert isinstance(engine, Isolated)
    assert (engine.ports, engine.name, engine.library) == (plain.ports, plain.name, plain.library)
    for image in _image():
        np.testing.assert_array_equal(engine.run(image[None]), plain.run(image[None]))
    np.testing.assert_array_equal(engine.run_many(_image()), plain.run_many(_image()))


def test_its_refusals_are_the_engines_own() -> None:
    with pytest.raises(EngineError, match=r"tiny\.tflite: the delegate's library can't be loaded"):
        open_engine(read_content(TINY), EngineOptions(delegate="nowhere.so", isolate=True))
    with pytest.raises(EngineError, match=r"got a tensor of float32"):
        open_engine(read_content(TINY), ISOLATED).run(np.zeros((1, 16, 16, 3), np.float32))


def test_an_engine_that_dies_is_one_line() -> None:
    """The check is passed by: this is what it may have missed."""
    with pytest.raises(DiedError) as caught:
        open_isolated(_hostile(), ISOLATED, COST)
    assert str(caught.value) == ("m.tflite: the engine died (SIGSEGV): broken or hostile file")
    assert caught.value.exit_code == 1


def test_an_engine_that_is_killed_between_runs_is_one_line() -> None:
    engine = open_isolated(read_content(TINY), ISOLATED, COST)
    engine.warm_up()
    engine._child.process.kill()
    with pytest.raises(DiedError, match=r"the engine died \(SIGKILL\)"):
        engine.warm_up()
    with pytest.raises(DiedError):
        engine.warm_up()


def test_an_engine_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_isolated(read_content(TINY), ISOLATED, COST)
    os.kill(engine._child.process.pid, signal.SIGSTOP)
    engine._seconds = 0.5
    with pytest.raises(DiedError, match=r"it took more than 0 s"):
        engine.warm_up()
    assert engine._child.process.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux bounds the memory of a process")
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "MEMORY", 1 << 20)
    monkeypatch.setattr(isolated, "STACK", 0)
    engine = open_isolated(read_content(TINY), ISOLATED, COST)
    images = np.zeros((50_000, 16, 16, 3), np.int8)  # 38 MB
    with pytest.raises(DiedError, match=r"it took more than .* MB"):
        engine.run_many(images)


def test_it_ends_with_its_object() -> None:
    engine = open_isolated(read_content(TINY), ISOLATED, COST)
    process = engine._child.process
    assert process.poll() is None
    del engine
    assert process.wait(10) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_ends_with_the_parent_even_in_the_middle_of_a_run() -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from kedge_runtime.artefact.content import read_content; "
        "from kedge_runtime.engines.choice import EngineOptions, open_engine; "
        "engine = open_engine(read_content(Path(sys.argv[1])), EngineOptions(isolate=True)); "
        "print(engine._child.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, TINY], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        if not _is_alive(child):
            return
        time.sleep(0.1)
    pytest.fail("the engine's process outlived its parent")


def _is_alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_threads_may_share_it() -> None:
    engine = open_engine(read_content(TINY), ISOLATED)
    images = _image()
    expected = [engine.run(image[None]) for image in images]
    wrong: list[int] = []

    def work(index: int) -> None:
        found = [engine.run(images[index : index + 1]) for _ in range(30)]
        wrong.extend(index for each in found if not np.array_equal(each, expected[index]))

    threads = [threading.Thread(target=work, args=(i % 3,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_file_without_a_seal_runs_isolated(artefacts: Path) -> None:
    sealed = Classifier.open(artefacts / "tiny.tflite", threads=1)
    assert not isinstance(sealed.engine, Isolated)
    unsealed = Classifier.open(TINY, threads=1, contract=sealed.contract)
    asked = Classifier.open(artefacts / "tiny.tflite", threads=1, isolate=True)
    assert isinstance(unsealed.engine, Isolated)
    assert isinstance(asked.engine, Isolated)


def test_classify_isolates_when_asked(kedge: Run, artefacts: Path, pictures: Path) -> None:
    plain = kedge("classify", artefacts / "tiny.tflite", pictures)
    assert plain[0] == 0
    assert kedge("classify", artefacts / "tiny.tflite", pictures, "--isolate") == plain


class Deadly(BenchCase):
    """A case whose process dies before anything is timed."""

    def open(self, *, copies: bool = False) -> Classifier:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("still alive")


def test_bench_says_the_same_of_its_own_process(artefacts: Path) -> None:
    with pytest.raises(DiedError) as caught:
        measure_apart(Deadly(artefacts / "tiny.tflite"), Plan((artefacts,)))
    path = artefacts / "tiny.tflite"
    assert str(caught.value) == f"{path}: the engine died (SIGSEGV): broken or hostile file"


def test_it_answers_in_a_process_of_many_descriptors() -> None:
    code = (
        "import os, resource, sys; from pathlib import Path; import numpy as np\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))\n"
        "held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]\n"
        "from kedge_runtime.artefact.content import read_content\n"
        "from kedge_runtime.engines.choice import EngineOptions, open_engine\n"
        "open_engine(read_content(Path(sys.argv[1])), EngineOptions(isolate=True)).warm_up()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, TINY], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
