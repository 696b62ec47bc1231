"""The switch between two models: no image without an answer, no model that is never released."""

import gc
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import EngineError, ImageError
from kedge_runtime.updates import shadow
from kedge_runtime.updates.shadow import ShadowFrames, ShadowLimits, run_shadow
from kedge_runtime.updates.switching import Following, SwitchingPredictor
from kedge_runtime.updates.verifying import RefusedUpdateError
from updated import model_file

pytest.importorskip("ai_edge_litert")

IMAGE = np.full((8, 8, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def old(tmp_path: Path, models: dict[str, bytes]) -> Classifier:
    return Classifier.open(model_file(tmp_path / "old.tflite", models["tflite"]))


@pytest.fixture
def new(tmp_path: Path, models: dict[str, bytes]) -> Classifier:
    names = ("crimson", "green", "blue", "dark")
    return Classifier.open(model_file(tmp_path / "new.tflite", models["tflite"], names))


def test_a_new_model_answers_from_the_next_image_on(old: Classifier, new: Classifier) -> None:
    model = SwitchingPredictor(old)
    assert (model(IMAGE).label, model.classes) == ("red", old.classes)
    trial = model.begin(new, 2)
    assert (model(IMAGE).label, trial.ended.is_set()) == ("crimson", False)
    assert (model(IMAGE).label, trial.ended.is_set()) == ("crimson", True)
    assert trial.error is None
    model.keep()
    assert (model(IMAGE).label, model.classes) == ("crimson", new.classes)


def test_the_old_model_answers_the_image_on_which_the_new_one_fails(
    old: Classifier, new: Classifier
) -> None:
    model = SwitchingPredictor(old)
    trial = model.begin(new, 3)
    assert model(IMAGE).label == "crimson"
    new.close()
    assert model(IMAGE).label == "red"
    assert isinstance(trial.error, EngineError)
    assert trial.ended.is_set()
    assert (model(IMAGE).label, model.model) == ("red", old)


def test_an_image_that_cannot_be_read_is_not_the_models_fault(
    old: Classifier, new: Classifier
) -> None:
    model = SwitchingPredictor(old)
    trial = model.begin(new, 1)
    with pytest.raises(ImageError):
        model(b"no image")
    assert (trial.error, trial.ended.is_set()) == (None, False)


def test_after_the_trial_an_error_is_raised(old: Classifier, new: Classifier) -> None:
    model = SwitchingPredictor(old)
    model.begin(new, 1)
    model(IMAGE)
    model.keep()
    new.close()
    with pytest.raises(EngineError):
        model(IMAGE)


def test_a_replaced_model_is_released(tmp_path: Path, models: dict[str, bytes]) -> None:
    path = model_file(tmp_path / "one.tflite", models["tflite"])
    model = SwitchingPredictor(Classifier.open(path))
    released = []
    for _ in range(3):
        released.append(weakref.ref(model.model))
        model.begin(Classifier.open(path), 1)
        model(IMAGE)
        model.keep()
    gc.collect()
    assert [each() for each in released] == [None] * 3


def test_other_threads_get_an_answer_of_one_model_during_switches(
    old: Classifier, new: Classifier
) -> None:
    model, stop, labels = SwitchingPredictor(old), threading.Event(), set[object]()

    def ask() -> None:
        while not stop.is_set():
            best = model(IMAGE).best
            labels.add((best.id, best.name))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        model.begin(new if turn % 2 else old, 1)
        model.keep()
    stop.set()
    for thread in threads:
        thread.join()
    assert labels <= {("red", "red"), ("crimson", "crimson")}


def test_offering_frames_takes_no_time_while_nobody_or_a_slow_model_takes_them(
    old: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "GAP", 0)
    stop = threading.Event()
    frames, result = ShadowFrames(stop), old(IMAGE)
    taken = frames.taken()
    threading.Timer(0.2, lambda: frames.offer(IMAGE, result)).start()
    assert next(taken)[1] is result
    began = time.monotonic()
    for _ in range(10_000):
        frames.offer(IMAGE, result)
    assert time.monotonic() - began < 2
    assert len([next(taken)]) == 1  # of 10 000 one waited
    stop.set()
    assert list(taken) == []


def test_the_gap_spreads_a_shadow_run(old: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "GAP", 60)
    stop = threading.Event()
    frames, result = ShadowFrames(stop), old(IMAGE)
    taken = frames.taken()
    threading.Timer(0.2, lambda: frames.offer(IMAGE, result)).start()
    next(taken)
    frames.offer(IMAGE, result)
    threading.Timer(0.5, stop.set).start()
    assert list(taken) == []


def running(model: Classifier, answers: Classifier, limits: ShadowLimits) -> object:
    """Run a shadow on a stream that another model answers."""
    stop = threading.Event()
    frames, result = ShadowFrames(stop), answers(IMAGE)

    def offer() -> None:
        while not stop.wait(0.005):
            frames.offer(IMAGE, result)

    thread = threading.Thread(target=offer)
    thread.start()
    try:
        return run_shadow(model, frames, limits)
    finally:
        stop.set()
        thread.join()


def test_a_shadow_run_compares_ids(
    old: Classifier, new: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "GAP", 0)
    tally = running(old, old, ShadowLimits(4, 1.0))
    assert tally == shadow.ShadowTally(4, 4)
    with pytest.raises(RefusedUpdateError, match=r"on 0 of 3 frames; at least 50.0 % of 4 are"):
        running(new, old, ShadowLimits(4, 0.5))
    assert running(new, old, ShadowLimits(4, 0.0)) == shadow.ShadowTally(4, 0)
    new.close()
    with pytest.raises(RefusedUpdateError, match=r"it failed in the shadow run: .*closed"):
        running(new, old, ShadowLimits(4, 0.5))


class Counting:
    """An observer of one model."""

    def __init__(self, name: str) -> None:
        self.name, self.seen, self.closed = name, 0, False

    def observe(self, pixels: object, result: object) -> tuple[()]:
        self.seen += 1
        return ()

    def close(self) -> None:
        self.closed = True


def test_observers_follow_the_model(old: Classifier, new: Classifier) -> None:
    made: list[Counting] = []

    def make(model: Classifier) -> list[Counting]:
        made.append(Counting(model.artefact.path.name))
        return made[-1:]

    model = SwitchingPredictor(old)
    following = Following(model, make)
    result = old(IMAGE)
    assert list(following.observe(IMAGE, result)) == []
    model.begin(new, 1)
    list(following.observe(IMAGE, result))  # it may be the old model's
    list(following.observe(IMAGE, new(IMAGE)))
    following.close()
    assert [(each.name, each.seen, each.closed) for each in made] == [
        ("old.tflite", 1, True),
        ("new.tflite", 1, True),
    ]
