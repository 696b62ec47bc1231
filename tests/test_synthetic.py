"""`--calibrate synthetic`: images from the batch norms alone, said where they are used."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Run
from full_disk import fill, small_file_system
from kedge_convert.calibration import synthetic
from kedge_convert.calibration.synthetic import Synthesis
from kedge_convert.fitting.subject import norms_of
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import Source, load_source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Pixels
from kedge_runtime.image.preprocessing import Preprocessor

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
SHORT = Synthesis(count=16, batch=16, steps=20)


@pytest.fixture(scope="module")
def demo() -> Source:
    return load_source(SourceRequest("demo"))


@pytest.fixture(scope="module")
def made(demo: Source) -> Pixels:
    return synthetic.images(demo, SHORT)


def distance(source: Source, images: Pixels) -> float:
    """Return the distance from the learned statistics, over all norms, in nats of each."""
    norms = norms_of(source.model, None)
    assert norms is not None
    plan = Preprocessor(source.input)
    values = norms.model.predict_on_batch(np.concatenate([plan.look_up(one) for one in images]))
    return float(norms.divergence([np.asarray(each) for each in values]).mean() / len(norms.floors))


def test_the_norms_see_what_they_saw_in_training(demo: Source, made: Pixels) -> None:
    before = synthetic.images(demo, Synthesis(count=16, batch=16, steps=1))
    assert distance(demo, made) < 0.25 * distance(demo, before)
    assert made.shape == (16, 96, 96, 3)


def test_the_model_sees_several_classes_in_them(demo: Source, made: Pixels) -> None:
    plan = Preprocessor(demo.input)
    logits = demo.logits(plan.look_up(one) for one in made)
    assert len(set(logits.argmax(axis=1).tolist())) >= 3


def test_a_full_disk_is_said(demo: Source, tmp_path: Path) -> None:
    """Images that are lost in silence would be missed only later, as too few or none."""
    with small_file_system(tmp_path / "small") as folder:
        fill(folder)
        with pytest.raises(OSError, match="No space left on device"):
            synthetic.write(folder, demo, 20, Synthesis(count=16, batch=16, steps=1))


def test_a_written_image_becomes_the_input_as_it_is(
    demo: Source, made: Pixels, tmp_path: Path
) -> None:
    """A crop takes the border away that was put around."""
    synthetic.write(tmp_path, demo, 20, SHORT)
    plan, paths = Preprocessor(demo.input), sorted(tmp_path.iterdir())
    assert len(paths) == 20
    for path, image in zip(paths, made, strict=False):
        np.testing.assert_array_equal(plan.fit(plan.read(path)), image)
    digests = {plan.read(path).tobytes() for path in paths}
    assert len(digests) == 20


def test_a_conversion_says_that_its_images_are_synthetic(tmp_path: Path, kedge: Run) -> None:
    counts = ["--calibrate-count", "60", "--check-count", "40"]
    words = ["--calibrate", "synthetic", "--to", "tflite:int8", "--out", tmp_path]
    code, _, err = kedge("convert", "demo", *words, *counts)
    assert code == 0, err
    assert "images: 100 synthetic ones, made from the model's batch norms" in err.replace("\n", " ")
    assert (tmp_path / "demo.int8.tflite").exists()


def test_a_model_without_batch_norms_is_refused(tmp_path: Path, kedge: Run) -> None:
    keras = require("keras")
    image = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(image))
    keras.Model(image, keras.layers.Dense(5)(pooled)).save(tmp_path / "plain.keras")
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    words = ["--preprocess", "load_img", "--normalisation", "tf", "--calibrate", "synthetic"]
    places = ["--labels", tmp_path / "labels.txt", "--out", tmp_path / "out"]
    code, _, err = kedge("convert", tmp_path / "plain.keras", *words, *places)
    assert code == 2
    assert "no batch norms to make images from; give a folder of images" in err


@pytest.mark.parametrize("limit", ["--min-agreement", "--max-drop"])
def test_synthetic_images_decide_no_limit(kedge: Run, limit: str) -> None:
    code, out, err = kedge("convert", "demo", "--calibrate", "synthetic", limit, "0.5%")
    assert (code, out) == (2, "")
    assert f"{limit}: synthetic images can't decide it; give a folder" in err
