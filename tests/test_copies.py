"""Small models are opened once for each thread, and answer as one engine does."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from conftest import Run
from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import read_content
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.commands import opening
from kedge_runtime.engines.choice import ENGINES, EngineOptions, open_engine
from kedge_runtime.engines.copies import TOGETHER, Copies, copies, open_copies
from kedge_runtime.engines.isolated import Isolated
from kedge_runtime.errors import EngineError
from kedge_runtime.image.ahead import ahead, answered

SHARED = EngineOptions(threads=4, copies=True)


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kedge_runtime.engines.copies.cores", lambda: 4)


@pytest.fixture
def file(artefacts: Path, form: str) -> Path:
    return artefacts / f"tiny.{form}"


@pytest.mark.parametrize(
    ("size", "threads", "count"),
    [
        (0, 1, 1),
        (1 << 20, 4, 4),
        (TOGETHER // 4, 4, 4),
        (TOGETHER // 4 + 1, 4, 3),
        (TOGETHER // 2, 4, 2),
        (TOGETHER, 4, 1),
        (4 * TOGETHER, 4, 1),
    ],
)
def test_all_copies_together_are_bounded(size: int, threads: int, count: int) -> None:
    assert copies(size, threads) == count


def test_answers_are_those_of_one_engine(file: Path, pictures: Path) -> None:
    images = sorted(pictures.iterdir())[:24]
    alone, shared = Classifier.open(file), Classifier.of(read_content(file), SHARED)
    assert isinstance(shared.engine, Copies)
    with ahead(shared.outputs, images) as answers:
        found = np.stack([answer() for _, answer in answers])
    np.testing.assert_array_equal(found, np.stack([alone.outputs(each) for each in images]))
    rows = np.stack([alone.preprocessor.tensor(alone.read(each))[0] for each in images[:5]])
    np.testing.assert_array_equal(shared.engine.run_many(rows), alone.engine.run_many(rows))
    assert shared.engine.threads == 4
    assert repr(shared) == repr(Classifier.open(file, threads=4))


def test_as_many_run_at_once_as_there_are_threads(file: Path) -> None:
    engine, held, most = open_engine(read_content(file), SHARED), list[int](), [0]
    assert isinstance(engine, Copies)

    def slowly(run: Callable[[Array], Array], tensor: Array) -> Array:
        held.append(1)
        most[0] = max(most[0], len(held))
        time.sleep(0.02)
        held.pop()
        return run(tensor)

    for each in engine._engines:
        each.run = partial(slowly, each.run)  # type: ignore[method-assign]
    zeros = np.zeros(engine.input_shape, engine.input.dtype)
    threads = [threading.Thread(target=engine.run, args=(zeros,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 4


def test_more_threads_than_cores_open_no_more_copies(file: Path) -> None:
    engine = open_engine(read_content(file), replace(SHARED, threads=9))
    assert isinstance(engine, Copies)
    assert len(engine._engines) == 4
    assert engine.threads == 9


def test_a_failed_run_gives_its_engine_back(file: Path) -> None:
    engine = open_engine(read_content(file), SHARED)
    for _ in range(9):
        with pytest.raises(EngineError, match="got a tensor"):
            engine.run(np.zeros((1, 2), np.float32))
    engine.warm_up()


def test_closing_closes_every_engine(file: Path) -> None:
    engine = open_engine(read_content(file), SHARED)
    engine.close()
    for _ in range(5):
        with pytest.raises(EngineError, match="closed"):
            engine.run(np.zeros(engine.input_shape, engine.input.dtype))


@pytest.mark.parametrize("changes", [{"threads": 1}, {"isolate": True}])
def test_one_engine_where_copies_gain_nothing(file: Path, changes: dict[str, object]) -> None:
    engine = open_engine(read_content(file), replace(SHARED, **changes))  # type: ignore[arg-type]
    assert not isinstance(engine, Copies)
    assert isinstance(engine, Isolated) == bool(changes.get("isolate"))


def test_opencv_has_threads_for_the_whole_process(artefacts: Path) -> None:
    assert not ENGINES["opencv"].copies
    engine = open_engine(read_content(artefacts / "tiny.onnx"), replace(SHARED, engine="opencv"))
    assert engine.name == "opencv"
    assert not isinstance(engine, Copies)


def test_a_large_model_is_opened_once_with_all_threads(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kedge_runtime.engines.copies.TOGETHER", 1)
    asked = list[int | None]()
    content = read_content(file)
    load = open_engine(content)
    opened = open_copies(lambda _, options: asked.append(options.threads) or load, content, SHARED)  # type: ignore[func-returns-value]
    assert opened is load
    assert asked == [4]


def test_classify_prints_the_same_with_and_without_copies(
    kedge: Run, file: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[bool]()
    of = Classifier.of.__func__  # type: ignore[attr-defined]

    def noting(cls: type, content: object, options: EngineOptions, *rest: object) -> Classifier:
        opened.append(options.copies)
        return of(cls, content, options, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(Classifier, "of", classmethod(noting))
    shared = kedge("classify", file, pictures, "--json", "--threads", "4")
    monkeypatch.setattr(opening, "MANY", 10_000)
    assert kedge("classify", file, pictures, "--json", "--threads", "4") == shared
    first = sorted(pictures.iterdir())[0]
    assert kedge("classify", file, first)[0] == 0
    assert opened == [True, False, False]


def test_the_engine_runs_in_the_threads_and_errors_keep_their_place() -> None:
    ran = set[int]()

    def prepare(number: int) -> Callable[[], int]:
        def run() -> int:
            ran.add(threading.get_ident())
            if number == 7:
                raise EngineError("the seventh")
            return number * number

        return run

    found = list[object]()
    with answered(prepare, range(30)) as answers:
        for number, answer in answers:
            try:
                found.append((number, answer()))
            except EngineError as error:
                found.append((number, str(error)))
    assert found == [(n, "the seventh" if n == 7 else n * n) for n in range(30)]
    assert ran - {threading.get_ident()}
