"""The sketch: what it keeps, that it is read back, and that nothing else is read."""

import io
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.file import Artefact, artefact_of
from kedge_runtime.artefact.reseal import resealed
from kedge_runtime.errors import ArtefactError
from kedge_runtime.field.measure import NAMES, STATISTICS, measure
from kedge_runtime.field.sketch import BINS, GROUP, Seen, Sketch, expected, sketch_of


def seen(images: int = 300, outputs: int = 10, seed: int = 0) -> Seen:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(images, len(STATISTICS))).astype(np.float32)
    rows[:, :3] = rng.uniform(0, 1, (images, 3))
    return Seen(rows, rng.integers(0, outputs, images), rng.random(images) < rows[:, 0])


@pytest.fixture
def sketch() -> Sketch:
    return sketch_of(seen(), 10)


def test_every_image_is_counted_once_a_statistic(sketch: Sketch) -> None:
    assert sketch.images == 300
    assert (sketch.counts.sum(axis=(0, 2)) == 300).all()
    # Quantiles: about as many in each bin.
    assert sketch.counts.sum(axis=0).max() <= 2 * 300 / BINS


def test_edges_are_the_least_and_the_largest_value(sketch: Sketch) -> None:
    rows = seen().rows
    assert np.array_equal(sketch.edges[:, 0], rows.min(axis=0))
    assert np.array_equal(sketch.edges[:, -1], rows.max(axis=0))


def test_classes_of_enough_images_have_a_group_of_their_own() -> None:
    predicted = np.array([3] * GROUP + [5] * (GROUP - 1) + [7] * 40)
    rows = seen(len(predicted)).rows
    sketch = sketch_of(Seen(rows, predicted), 10)
    assert sketch.groups.tolist() == [3, 7]
    assert sketch.counts[:, 0].sum(axis=1).tolist() == [GROUP, 40, GROUP - 1]
    assert [sketch.group(output) for output in (3, 7, 5, 0)] == [0, 1, 2, 2]
    assert expected(sketch, 7) == 40 / len(predicted)


def test_the_threshold_leaves_as_many_images_as_were_right(sketch: Sketch) -> None:
    mean, right, threshold = sketch.accuracy.tolist()
    data = seen()
    assert right == pytest.approx(data.right.mean())  # type: ignore[union-attr]
    assert (data.rows[:, 0] > threshold).mean() == pytest.approx(right, abs=0.01)
    assert mean == pytest.approx(data.rows[:, 0].mean())


def test_without_ground_truth_there_is_no_accuracy() -> None:
    sketch = sketch_of(replace(seen(), right=None), 10)
    assert np.isnan(sketch.accuracy[1:]).all()
    assert same(Sketch.from_bytes(sketch.to_bytes()), sketch)


def same(one: Sketch, other: Sketch) -> bool:
    pairs = ((getattr(one, field.name), getattr(other, field.name)) for field in fields(Sketch))
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def test_what_was_written_is_read_and_small(sketch: Sketch) -> None:
    content = sketch.to_bytes()
    assert same(Sketch.from_bytes(content), sketch)
    assert sketch.to_bytes() == sketch_of(seen(), 10).to_bytes() == content
    assert len(content) < 8000


FAULTS: dict[str, dict[str, Any]] = {
    "other members": {"extra": np.zeros(1)},
    "edges that fall": {"edges": lambda a: a[:, ::-1].copy()},
    "edges that are no numbers": {"edges": lambda a: a * np.nan},
    "counts of other images": {
        "counts": lambda a: (
            a
            + np.eye(BINS, dtype=np.uint32)[0]
            * (np.arange(len(NAMES)) == 2)[:, None].astype(np.uint32)
        )
    },
    "no images": {"counts": lambda a: a * 0},
    "too many images": {"counts": lambda a: a * np.uint32(1_000_000)},
    "another shape": {"counts": lambda a: a[:, :3]},
    "another dtype": {"counts": lambda a: a.astype(np.int64)},
    "a group twice": {"groups": lambda a: np.repeat(a[:1], len(a))},
    "a group outside the outputs": {"groups": lambda a: a + 1000},
    "no temperature": {"temperature": lambda a: a * 0},
    "an accuracy of 2": {"accuracy": lambda a: a + 2},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_sketch_is_refused(sketch: Sketch, fault: str) -> None:
    arrays = {field.name: getattr(sketch, field.name) for field in fields(Sketch)}
    for name, change in FAULTS[fault].items():
        arrays[name] = change(arrays[name]) if callable(change) else change
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    with pytest.raises(ArtefactError, match="the sketch is damaged"):
        Sketch.from_bytes(file.getvalue())


def test_a_sketch_cut_anywhere_is_refused(sketch: Sketch) -> None:
    content = sketch.to_bytes()
    for length in range(0, len(content), 97):
        with pytest.raises(ArtefactError):
            Sketch.from_bytes(content[:length])


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_a_sealed_file_carries_it(sketch: Sketch, artefacts: Path, form: str) -> None:
    path = artefacts / f"tiny.{form}"
    before = ModelContent(path, form, path.read_bytes())
    bare = artefact_of(before)
    assert bare.sketch is None
    sealed = ModelContent(path, form, b"".join(resealed(before, bare.contract, sketch)))
    after: Artefact = artefact_of(sealed)
    assert after.sketch is not None
    assert same(after.sketch, sketch)
    assert after.contract == bare.contract
    # Once more: the old sketch is replaced, nothing is left of it.
    assert b"".join(resealed(sealed, after.contract, sketch)) == sealed.data


# Changes of an image, and the statistics that must move with it.
MOVES: dict[str, tuple[Callable[[Any], Any], int]] = {
    "luminance": (lambda x: x // 2, -1),
    "contrast": (lambda x: x // 2 + 60, -1),
    "red_blue": (lambda x: np.ascontiguousarray(x[..., ::-1]), -1),
    "vertical": (lambda x: np.ascontiguousarray(x[::-1]), -1),
    "sky": (lambda x: np.ascontiguousarray(x[::-1]), -1),
    "saturation": (lambda x: (x // 2 + x.mean(axis=2, keepdims=True) // 2).astype(np.uint8), -1),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_statistic_moves_with_what_it_is_named_for(name: str) -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(200, 60, 64)[:, None, None] * np.array([1.0, 0.8, 0.6])
    ramp[:20, :, 2] += 60
    image = np.clip(ramp + rng.normal(0, 12, (64, 64, 3)), 0, 255).astype(np.uint8)
    change, sign = MOVES[name]
    before, after = (measure(x, (0.5, 0.2, 0.1))[NAMES.index(name)] for x in (image, change(image)))
    assert np.sign(after - before) == sign
    assert measure(image, (0.5, 0.2, 0.1))[:3] == pytest.approx([0.5, 0.2, 0.1])
