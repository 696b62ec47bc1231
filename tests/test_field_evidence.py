"""The tests of a stream: no alarm without a fault, one with it, groups, notices, state."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kedge_runtime.artefact.content import digest
from kedge_runtime.artefact.contract import Label
from kedge_runtime.errors import ArtefactError
from kedge_runtime.field import state
from kedge_runtime.field.evidence import MEMORY, RECOVERY, FieldTests, MeasuredFrame
from kedge_runtime.field.finding import describe
from kedge_runtime.field.measure import NAMES, STATISTICS
from kedge_runtime.field.sketch import Seen, Sketch, sketch_of
from kedge_runtime.modelfile.archives import read_arrays

LABELS = [Label(f"c{i}", f"class {i}") for i in range(6)]
LUMINANCE = NAMES.index("luminance")


def rows(rng: np.random.Generator, predicted: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Draw statistics of frames: those of class 5 are far darker than the others'."""
    values = rng.normal(size=(len(predicted), len(STATISTICS))).astype(np.float32)
    values[:, 0] = np.clip(0.8 + 0.1 * values[:, 0], 0, 1)
    values[:, LUMINANCE] += shift - 4 * (predicted == 5)
    return values


def drawn(rng: np.random.Generator, count: int, often: int | None = None) -> np.ndarray:
    """Draw classes; `often`: the one that comes in 40 %."""
    classes = rng.integers(0, 6, count)
    return classes if often is None else np.where(rng.random(count) < 0.4, often, classes)


def frames(
    rng: np.random.Generator, count: int, shift: float = 0.0, often: int | None = None
) -> Iterator[MeasuredFrame]:
    predicted = drawn(rng, count, often)
    for time, (row, best) in enumerate(zip(rows(rng, predicted, shift), predicted, strict=True)):
        yield MeasuredFrame(row, int(best), (int(best),), float(time))


@pytest.fixture
def sketch() -> Sketch:
    rng = np.random.default_rng(7)
    predicted = drawn(rng, 300)
    return sketch_of(Seen(rows(rng, predicted), predicted, rng.random(300) < 0.8), 6)


def turned(evidence: FieldTests, stream: Iterator[MeasuredFrame]) -> list[tuple[str, str, int]]:
    return [
        (
            turn.kind,
            LABELS[turn.test].id if turn.kind == "mix" else NAMES[turn.test],
            evidence.frames,
        )
        for frame in stream
        for turn in evidence.add(frame)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_no_alarm_without_a_fault(sketch: Sketch, seed: int) -> None:
    evidence = FieldTests(sketch, seed)
    assert turned(evidence, frames(np.random.default_rng(seed), 4000)) == []


@pytest.mark.parametrize("before", [0, 1000])
def test_a_fault_is_found_and_said_in_words(sketch: Sketch, before: int) -> None:
    rng, evidence = np.random.default_rng(1), FieldTests(sketch)
    assert turned(evidence, frames(rng, before)) == []
    for frame in frames(rng, 300, shift=-1.0):
        if turns := evidence.add(frame):
            break
    assert [(turn.kind, NAMES[turn.test]) for turn in turns] == [("alarm", "luminance")]
    finding = describe(evidence, turns[0], LABELS)
    assert finding.text("16:40").startswith("images are darker than in calibration since 16:40")
    assert abs(finding.since - before) < 60
    assert finding.shift < -0.5
    assert len(finding.look) == 5
    assert all(before - 60 < frame < evidence.frames for frame in finding.look)


def test_beyond_calibration_is_said(sketch: Sketch) -> None:
    rng, evidence = np.random.default_rng(1), FieldTests(sketch)
    for frame in frames(rng, 300, shift=9.0):
        if turns := [turn for turn in evidence.add(frame) if turn.test == LUMINANCE]:
            break
    text = describe(evidence, turns[0], LABELS).text("noon")
    assert text.startswith("images are brighter than anything in calibration since noon")


def test_another_mix_of_classes_is_a_notice_and_no_alarm(sketch: Sketch) -> None:
    # Class 5 is dark: without groups the luminance would raise an alarm.
    evidence = FieldTests(sketch)
    turns = turned(evidence, frames(np.random.default_rng(2), 1500, often=5))
    assert turns
    assert {kind for kind, _, _ in turns} == {"mix"}
    assert turns[0][1] == "c5"
    assert turns[0][2] < 150


def test_a_notice_names_the_class_and_its_shares(sketch: Sketch) -> None:
    evidence = FieldTests(sketch)
    for frame in frames(np.random.default_rng(2), 300, often=5):
        if turns := evidence.add(frame):
            break
    text = describe(evidence, turns[0], LABELS).text("noon")
    assert "class mix changed: class 5" in text
    assert "expected" in text
    assert "accuracy" not in text


def test_a_mix_does_not_hide_a_fault(sketch: Sketch) -> None:
    rng, evidence = np.random.default_rng(2), FieldTests(sketch)
    turned(evidence, frames(rng, 500, often=5))
    turns = turned(evidence, frames(rng, 300, shift=1.5, often=5))
    assert ("alarm", "luminance") in {turn[:2] for turn in turns}


def test_an_alarm_stays_while_the_fault_lasts_and_ends_with_it(sketch: Sketch) -> None:
    rng, evidence = np.random.default_rng(3), FieldTests(sketch)
    kinds = turned(evidence, frames(rng, 3000, shift=1.2))
    assert [kind for kind, _, _ in kinds] == ["alarm"]
    ended = turned(evidence, frames(rng, 4 * RECOVERY))
    assert ended[0][:2] == ("over", "luminance")
    assert [kind for kind, _, _ in turned(evidence, frames(rng, 300, shift=1.2))] == ["alarm"]


def test_memory_is_bounded(sketch: Sketch) -> None:
    evidence = FieldTests(sketch)
    turned(evidence, frames(np.random.default_rng(0), 2 * MEMORY))
    assert len(evidence.remembered(0)) == MEMORY
    assert evidence.remembered(0)[-1] == evidence.frames - 1


def test_a_restart_changes_nothing_but_the_random_ranks(sketch: Sketch) -> None:
    rng, evidence = np.random.default_rng(4), FieldTests(sketch, 5)
    turned(evidence, frames(rng, 700, shift=0.2))
    content = state.to_bytes(evidence, "sha256:x")
    again = state.from_bytes(content, sketch, "sha256:x", 5)
    assert state.to_bytes(again, "sha256:x") == content
    rest = list(frames(rng, 300, shift=1.0))
    found = [turned(each, iter(rest)) for each in (evidence, again)]
    assert found[0][0][:2] == found[1][0][:2] == ("alarm", "luminance")


@pytest.mark.parametrize("cut", [0, 40, 200, -1, -71])
def test_a_damaged_state_is_refused(sketch: Sketch, cut: int) -> None:
    content = state.to_bytes(FieldTests(sketch), "sha256:x")
    with pytest.raises(ArtefactError, match="damaged"):
        state.from_bytes(content[:cut], sketch, "sha256:x")


def test_a_state_of_another_file_is_refused(sketch: Sketch) -> None:
    content = state.to_bytes(FieldTests(sketch), "sha256:x")
    with pytest.raises(ArtefactError, match="another file"):
        state.from_bytes(content, sketch, "sha256:y")


@pytest.mark.parametrize("name", ["tests", "counts", "frames", "memory_values", "began"])
def test_impossible_numbers_are_refused_behind_a_right_digest(sketch: Sketch, name: str) -> None:
    content = state.to_bytes(FieldTests(sketch), "sha256:x")
    arrays = {key: value.copy() for key, value in read_arrays(content[: -len(digest(b""))]).items()}
    arrays[name][...] = -5 if arrays[name].dtype.kind == "i" else np.nan
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    body = file.getvalue()
    with pytest.raises(ArtefactError, match="damaged"):
        state.from_bytes(body + digest(body), sketch, "sha256:x")


def test_a_state_is_written_whole(sketch: Sketch, tmp_path: Path) -> None:
    path = tmp_path / "field.state"
    state.write_state(path, FieldTests(sketch), "sha256:x")
    assert state.read_state(path, sketch, "sha256:x").frames == 0
    assert [each.name for each in tmp_path.iterdir()] == ["field.state"]
    with pytest.raises(ArtefactError, match="no such file"):
        state.read_state(tmp_path / "none", sketch, "sha256:x")
