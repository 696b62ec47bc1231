"""TFLite files with an open batch, as TensorFlow's converter writes them by default."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.export import flatbuffer
from kedge_convert.toolkit import require
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import ArtefactError
from kedge_runtime.modelfile.check.check import check_model
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
SIDES = (17, 16, 3)


def dilated(keras: Any) -> Any:
    """Return a net whose dilated convolutions move blocks of the image into the batch."""
    keras.utils.set_random_seed(3)
    image = keras.Input(SIDES)
    value = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    value = keras.layers.Conv2D(6, 3, dilation_rate=2, padding="same")(value)
    value = keras.layers.DepthwiseConv2D(3, dilation_rate=3)(value)
    value = keras.layers.GlobalAveragePooling2D()(value)
    return keras.Model(image, keras.layers.Dense(5)(value))


@pytest.fixture(scope="module")
def model() -> Any:
    return dilated(require("keras"))


@pytest.fixture(scope="module")
def converted(model: Any) -> bytes:
    with quiet():
        lite = require("tensorflow").lite
        return bytes(lite.TFLiteConverter.from_keras_model(model).convert())


def content_of(data: bytes) -> ModelContent:
    return ModelContent(Path("dilated.tflite"), "tflite", data)


def test_blocks_in_an_open_batch_pass_and_run(model: Any, converted: bytes) -> None:
    kinds = [kind for kind, _ in flatbuffer.operators(flatbuffer.unpack(converted))]
    assert "SPACE_TO_BATCH_ND" in kinds
    check_model(content_of(converted))
    image = np.random.default_rng(0).uniform(-1, 1, (1, *SIDES)).astype(np.float32)
    found = open_engine(content_of(converted)).run(image)
    np.testing.assert_allclose(found.reshape(1, -1), model(image, training=False), atol=1e-5)


def test_other_sides_than_the_batch_must_be_right(converted: bytes) -> None:
    net = flatbuffer.unpack(converted)
    moved = dict(flatbuffer.operators(net))["SPACE_TO_BATCH_ND"]
    tensor = net.subgraphs[0].tensors[moved.outputs[0]]
    tensor.shape = np.array([1, *(tensor.shape[1:] + 1)], np.int32)
    with pytest.raises(ArtefactError, match="SPACE_TO_BATCH_ND: it gives the shape"):
        check_model(content_of(flatbuffer.pack(net)))
