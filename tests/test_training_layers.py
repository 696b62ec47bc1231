"""Augmentation in a model of Keras 3: out when it is loaded, wherever it lies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.load.input_stage import noise
from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_convert.toolkit import require
from kedge_runtime.classify.results import probabilities
from kedge_runtime.image.input_options import InputOptions

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 12, 12, 3)).astype(np.float32)


def base(layers: Any) -> Any:
    """Return a nested model with a layer that derives what it uses from its weights."""
    keras = require("keras")
    image, adapted = keras.Input((12, 12, 3)), layers.Normalization()
    adapted.adapt(IMAGES)
    value = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(adapted(image)))
    return keras.Model(image, value, name="base")


def functional(keras: Any, layers: Any) -> Any:
    """Return a model as the tutorials build it, with operations in its graph."""
    image = keras.Input((12, 12, 3))
    augment = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.2)], name="augment")
    image_told = layers.RandomFlip("vertical")(image, training=False)
    value = keras.ops.mean(base(layers)(augment(image_told)[..., ::-1]), axis=(1, 2))
    value = layers.Dropout(0.3)(value / 255.0)
    return keras.Model(image, layers.Dense(5, activation="softmax")(value))


def sequential(keras: Any, layers: Any) -> Any:
    augment = keras.Sequential([layers.RandomFlip(), layers.RandomContrast(0.2)])
    end = [layers.Flatten(), layers.Dense(1, activation="sigmoid")]
    return keras.Sequential(
        [keras.Input((12, 12, 3)), augment, layers.Rescaling(1 / 255), base(layers), *end]
    )


def composed(keras: Any, layers: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.RandAugment((0, 255)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(4, 3),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )


MODELS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "functional": (functional, "RandomFlip, RandomRotation"),
    "sequential": (sequential, "RandomFlip, RandomContrast"),
    "composed": (composed, "RandAugment"),
}


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", MODELS)
def test_augmentation_is_left_out(tmp_path: Path, name: str, suffix: str) -> None:
    make, kinds = MODELS[name]
    keras = require("keras")
    model = make(keras, keras.layers)
    expected = np.asarray(model(IMAGES, training=False))
    model.save(tmp_path / f"it.{suffix}")
    found = load(SourceRequest(str(tmp_path / f"it.{suffix}")))
    assert found.notes == (f"training-only layers skipped: {kinds}",)
    # Called as exports call it, without a word of training.
    np.testing.assert_allclose(found.model(IMAGES), expected, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_its_head_is_proven_without_it(tmp_path: Path, name: str) -> None:
    keras = require("keras")
    model = MODELS[name][0](keras, keras.layers)
    model.save(tmp_path / "it.keras")
    classes = max(2, model.outputs[0].shape[-1])
    (tmp_path / "labels").write_text("\n".join(map(str, range(1, classes + 1))))
    request = SourceRequest(
        str(tmp_path / "it.keras"),
        labels=str(tmp_path / "labels"),
        pixels=InputOptions("imagenet", "raw"),
    )
    source = load_source(request)
    expected = np.asarray(model(IMAGES, training=False))
    answers = probabilities(source.logits(image[None] for image in IMAGES), source.output)
    np.testing.assert_allclose(answers[:, -expected.shape[1] :], expected, atol=1e-5)


def test_noise_is_drawn_in_the_range_of_the_model() -> None:
    keras = require("keras")
    of_bytes = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Rescaling(1 / 255)])
    of_floats = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])
    bytes_, floats = noise(of_bytes, 2), noise(of_floats, 2)
    assert bytes_.min() >= 0 and 200 < bytes_.max() < 256
    assert -1 <= floats.min() < -0.9 and 0.9 < floats.max() <= 1
    assert floats.shape[1] > 12 and bytes_.shape == (2, 12, 12, 3)
