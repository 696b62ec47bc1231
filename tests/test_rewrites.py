"""Rewrites for accelerators: the same function in floats, and what the device then makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MODELS, Run
from kedge_convert.device.forecast import forecast
from kedge_convert.rewrite.lowering import rewrite
from kedge_convert.toolkit import require
from kedge_models.demo import shapes
from kedge_models.devices import device
from kedge_runtime.artefact.content import read_content
from kedge_runtime.errors import UsageError
from kedge_runtime.modelfile.network import Network, read_network
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


def _net() -> Any:
    """Return a small network with hard_swish in each of the ways that Keras has for it."""
    keras = require("keras")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    source = keras.Input(batch_shape=(1, 16, 16, 3))
    values = layers.Conv2D(8, 3, activation="hard_silu")(source)
    values = layers.Activation("hard_swish")(layers.DepthwiseConv2D(3)(values))
    values = keras.ops.hard_silu(layers.Conv2D(8, 1)(values))
    values = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1, activation="relu6")(values))
    return keras.Model(source, layers.Dense(4, activation="elu")(values))


def _pictures(count: int, side: int) -> Any:
    return np.random.default_rng(0).uniform(-3, 3, (count, 1, side, side, 3)).astype(np.float32)


def _int8(model: Any, path: Path, side: int) -> Network:
    tf = require("tensorflow")
    keras = require("keras")
    picture = keras.Input(batch_shape=(1, side, side, 3))
    with quiet():
        single = keras.Model(picture, model(picture))
        converter = tf.lite.TFLiteConverter.from_keras_model(single)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture] for picture in _pictures(4, side))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        path.write_bytes(converter.convert())
    return read_network(read_content(path))


def _kinds(network: Network) -> set[str]:
    return {operator.kind for operator in network.operators}


def test_hard_swish_becomes_what_the_edge_tpu_has(tmp_path: Path) -> None:
    model = _net()
    done = rewrite(model, ["hard-swish"])
    assert sum("hard" in note.lower() for note in done.notes) == len(done.notes) > 0
    for picture in _pictures(4, 16):
        before, after = (np.asarray(each(picture)) for each in (model, done.model))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    before_kinds = _kinds(_int8(model, tmp_path / "before.tflite", 16))
    network = _int8(done.model, tmp_path / "after.tflite", 16)
    assert "HARD_SWISH" in before_kinds and "HARD_SWISH" not in _kinds(network)
    # The elu stays as it is: nobody asked for it.
    stays = {fate.kind for fate in forecast(network, device("coral")) if fate.level == "stays"}
    assert stays == {"DEQUANTIZE", "ELU", "QUANTIZE"}


def test_a_model_without_it_is_left_alone() -> None:
    keras = require("keras")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu")])
    done = rewrite(model, ["hard-swish"])
    assert done.model is model and done.notes == ()


def test_an_unknown_rewrite_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="--rewrite: got 'gelu', allowed are hard-swish"):
        rewrite(None, ["gelu"])


def test_the_command_rewrites_before_anything_else(kedge: Run, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(label.name for label in shapes.LABELS))
    words = [
        MODELS / "small-mobilenetv3.keras",
        "--preprocess",
        "imagenet",
        "--normalisation",
        "tf",
        "--labels",
        labels,
    ]
    for extra in ((), ("--rewrite", "hard-swish")):
        out = tmp_path / f"out{len(extra)}"
        code, _, stderr = kedge("convert", *words, "--to", "tflite:float32", "--out", out, *extra)
        assert code == 0, stderr
        (path,) = out.iterdir()
        assert ("HARD_SWISH" in _kinds(read_network(read_content(path)))) is not bool(extra)


@pytest.mark.slow
def test_a_rewritten_mobilenet_v3_has_nothing_that_stays(tmp_path: Path) -> None:
    keras = require("keras")
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV3Small(
        (96, 96, 3), weights=None, classes=10, alpha=0.75, classifier_activation=None
    )
    network = _int8(rewrite(model, ["hard-swish"]).model, tmp_path / "rewritten.tflite", 96)
    stays = [fate for fate in forecast(network, device("coral")) if fate.level == "stays"]
    assert stays == []
