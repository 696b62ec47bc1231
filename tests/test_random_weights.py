"""The benchmarks' random weights: answers differ from image to image, and the name says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import random_weights
from kedge_convert.images import collect, tensors
from kedge_convert.prepare.graph import trace
from kedge_convert.sampling import Sampling
from kedge_models.cards import card
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Input
from kedge_runtime.artefact.file import read_artefact
from random_weights import LOGIT_SPREAD, SETTLERS, initialise

Run = Callable[..., tuple[int, str, str]]

# Plain convolutions and batch norms; swish with squeeze-excite, and a convolution for a head; layer
# norms with layer scales.
SMALL = {"MobileNet-0.25": 96, "MobileNetV3Small": 96, "ConvNeXtTiny": 64}


def build(name: str, size: int) -> Any:
    return random_weights.build(card(name), size)


def pictures(name: str, size: int, folder: Path) -> tuple[Floats, Floats]:
    """Return real photos to settle on, and others."""
    found = card(name)
    geometry = found.geometry()
    spec = Input(type(geometry)(size, size), found.normaliser())
    photos = collect(folder, Sampling(32, 30))
    first, second = (
        np.concatenate(list(tensors(p, spec))) for p in (photos.calibration, photos.validation)
    )
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_answers_to_other_photos_vary_as_trained_ones_do(shared: Path, name: str) -> None:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    settling, others = pictures(name, SMALL[name], shared / "data" / "images")
    model = build(name, SMALL[name])
    initialise(trace(model), settling)
    # Weights that are all alike are as Keras made them, such as ConvNeXt's layer scales of 1e-6.
    assert [each.path for each in model.trainable_weights if np.ptp(each) == 0] == []
    logits = np.asarray(model.predict_on_batch(others))
    assert LOGIT_SPREAD / 1.5 < logits.std() < LOGIT_SPREAD * 1.5
    # Of 1000 classes: nearly every photo gets one of its own, and none outshouts the others.
    assert len(set(logits.argmax(axis=1))) > 15
    assert logits.std(axis=1).max() < 4 * np.median(logits.std(axis=1))


def test_the_same_seed_gives_the_same_weights(shared: Path) -> None:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    settling, _ = pictures("MobileNet-0.25", 32, shared / "data" / "images")
    models = [build("MobileNet-0.25", 32) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        initialise(trace(model), settling[:8], seed)
    first, again, other = (np.concatenate([w.ravel() for w in m.get_weights()]) for m in models)
    np.testing.assert_allclose(first, again, rtol=1e-3, atol=1e-5)
    assert np.abs(first - other).mean() > 0.1


def test_norms_get_the_statistics_of_their_input(shared: Path) -> None:
    keras = pytest.importorskip("keras", reason="the converter needs TensorFlow")
    settling, _ = pictures("MobileNet-0.25", 32, shared / "data" / "images")
    model = build("MobileNet-0.25", 32)
    initialise(trace(model), settling)
    for name in ("conv1_bn", "conv_dw_7_bn"):
        norm = model.get_layer(name)
        before = keras.Model(model.inputs, norm.input)
        value = np.asarray(before.predict_on_batch(settling), np.float64)
        np.testing.assert_allclose(norm.moving_mean, value.mean((0, 1, 2)), rtol=1e-2, atol=1e-2)
        np.testing.assert_allclose(norm.moving_variance, value.var((0, 1, 2)), rtol=1e-2)


def test_every_layer_of_the_zoo_with_kernels_is_settled() -> None:
    """Building all 41 takes minutes: these have all kinds of layer that there are."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    names = ["EfficientNetB0", "ResNet50V2", "Xception", *SMALL]
    unsettled = {
        type(node.layer).__name__
        for name in names
        for node in trace(build(name, SMALL.get(name, 96))).nodes
        if any(len(w.shape) > 1 for w in getattr(node.layer, "trainable_weights", ()))
    } - set(SETTLERS)
    assert unsettled == set()


@pytest.mark.slow
def test_the_command_converts_them_under_a_name_that_tells(
    kedge: Run, shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    images = shared / "data" / "images"
    model = random_weights.write("MobileNet-0.25", images, Sampling(12, 20), tmp_path)
    words = "--card MobileNet-0.25 --head logits --force-input --to tflite:float32 --json"
    counts = "--calibrate-count 12 --check-count 20"
    options = [*words.split(), *counts.split(), "--calibrate", images, "--out", tmp_path]
    code, out, err = kedge("convert", model, *options)
    assert code == 0, err
    (made,) = json.loads(out)["artefacts"]
    assert Path(made["path"]).name == "mobilenet-0.25-untrained.float32.tflite"
    origin = read_artefact(Path(made["path"])).contract.provenance
    assert origin.source == "mobilenet-0.25-untrained"
    assert origin.weights_digest.startswith("sha256:")
