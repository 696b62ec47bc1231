"""The demo: its pictures are repeatable, its files small, and its model right."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from kedge_models.demo import pictograms
from kedge_models.demo.shapes import CANVAS, LABELS, MODEL, SAMPLES, mask

NAMES = [label.name for label in LABELS]


def test_ten_classes_with_distinct_ids() -> None:
    assert len(LABELS) == len({label.id for label in LABELS}) == 10
    assert all(label.id == f"demo-{label.name}" for label in LABELS)


def test_the_labels_need_neither_opencv_nor_tensorflow() -> None:
    code = (
        "import sys; import kedge_models.demo.shapes; "
        "sys.exit(any(name in sys.modules for name in ('cv2', 'tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_training_loads_no_tensorflow() -> None:
    code = (
        "import sys; import kedge_models.demo.train; "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_covers_neither_nothing_nor_everything(name: str) -> None:
    drawn = mask(name)
    assert drawn.shape == (CANVAS, CANVAS)
    assert set(np.unique(drawn)) == {0, 255}
    assert 0.15 < (drawn > 0).mean() < 0.6


@pytest.mark.parametrize("index", range(10))
def test_rendering_is_repeatable_byte_for_byte(index: int) -> None:
    first, second = (pictograms.render(index, np.random.default_rng(3)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.tobytes() == second.tobytes()
    assert first.shape == second.shape
    assert all(120 <= side <= 240 for side in first.shape[:2])


def test_another_seed_gives_other_pictures() -> None:
    (first,), _ = pictograms.dataset(1, seed=1)
    (second,), _ = pictograms.dataset(1, seed=2)
    assert first.tobytes() != second.tobytes()


def test_a_dataset_is_balanced() -> None:
    pictures, classes = pictograms.dataset(30, seed=5)
    assert len(pictures) == 30
    assert np.bincount(classes).tolist() == [3] * 10


def test_written_files_carry_their_class_and_are_repeatable(tmp_path: Path) -> None:
    first = pictograms.write(tmp_path / "first", 12, seed=4)
    second = pictograms.write(tmp_path / "second", 12, seed=4)
    assert [path.stem.split("_")[0] for path in first] == (NAMES + NAMES)[:12]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_samples_cover_all_classes_and_are_readable() -> None:
    samples = sorted(SAMPLES.glob("*.jpg"))
    assert len(samples) == 12
    assert {path.stem.split("_")[0] for path in samples} == set(NAMES)
    assert all(cv2.imread(str(path)) is not None for path in samples)
    assert sum(path.stat().st_size for path in samples) < 200_000


def test_the_model_is_at_most_a_megabyte() -> None:
    assert MODEL.stat().st_size <= 1_000_000


@pytest.mark.slow
def test_the_model_is_right_on_pictures_it_never_saw() -> None:
    pytest.importorskip("tensorflow")
    import keras

    from kedge_models.demo.train import accuracy

    model = keras.models.load_model(MODEL, compile=False)
    assert (model.input_shape, model.output_shape) == ((None, 96, 96, 3), (None, 10))
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert accuracy(model, *pictograms.dataset(400, seed=2024)) >= 0.97
