"""Files without their weights are refused, those that hold all that is needed aren't."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kedge_convert.export import structure, tflite
from kedge_convert.export.structure import READERS
from kedge_convert.export.tflite_converter import FLOAT, converted, single
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Output
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
SHAPE = (8, 8, 3)


def equal_layers(keras: Any, image: Any) -> Any:
    """Two layers with the same weights, as a shared model that Keras 2.12 saves twice."""
    first, second = (keras.layers.Conv2D(16, 3, padding="same") for _ in range(2))
    value = keras.layers.Conv2D(16, 1)(image)
    value = second(keras.layers.ReLU()(first(value)))
    second.set_weights(first.get_weights())
    return value


def unused_branch(keras: Any, image: Any) -> Any:
    """A nested model of two outputs, of which one goes on."""
    inside = keras.Input(SHAPE)
    value = keras.layers.Conv2D(8, 3)(inside)
    auxiliary = keras.layers.Dense(64)(keras.layers.Dense(64)(value))
    return keras.Model(inside, [value, auxiliary])(image)[0]


def source_of(build: Callable[[Any, Any], Any]) -> Source:
    keras = require("keras")
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    value = keras.layers.GlobalAveragePooling2D()(build(keras, image))
    model = keras.Model(image, keras.layers.Dense(5)(value))
    spec = Input(Geometry(*SHAPE[:2]), Normalisation(divisor=255.0))
    return Source("net", model, spec, Output("logits"), (), "")


@pytest.mark.parametrize("build", [equal_layers, unused_branch])
def test_what_a_file_needs_not_hold_is_not_missed(build: Callable[[Any, Any], Any]) -> None:
    """Answers are equal, and fewer numbers are held than the model's kernels have."""
    source = source_of(build)
    content = tflite.export(source, "float32").content
    kernels = sum(np.size(w) for w in source.model.get_weights() if w.ndim > 1)
    assert READERS["tflite"](content).numbers < structure.LEAST_SHARE * kernels
    (noise,) = structure.probes(source, 1)
    answer = _answer(content, noise)
    np.testing.assert_allclose(answer, source.model.predict_on_batch(noise), atol=1e-5)


@pytest.mark.parametrize("build", [equal_layers, unused_branch])
def test_lost_weights_are_told_beside_those_that_may_go(build: Callable[[Any, Any], Any]) -> None:
    source = source_of(build)
    image = require("keras").Input(SHAPE)
    pooled = require("keras").layers.GlobalAveragePooling2D()(image)
    other = replace(
        source, model=require("keras").Model(image, pooled[:, :1] * np.ones(5, np.float32))
    )
    content = converted(single(other), FLOAT, "net")
    with pytest.raises(ConversionError, match=r"kernels have \d+: weights are lost"):
        structure.check("tflite", content, source)


def test_a_converter_that_leaves_the_weights_out_is_caught() -> None:
    """TensorFlow's own, given the wrong object beside a concrete function, ends without error."""
    tf, source = require("tensorflow"), source_of(equal_layers)
    taken = tf.TensorSpec((1, *SHAPE), tf.float32)
    function = tf.function(source.model).get_concrete_function(taken)
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], source.model)
        content = converter.convert()
    with pytest.raises(ConversionError, match=r"lost|VAR_HANDLE|not finite|doesn't run"):
        structure.check("tflite", content, source)


def _answer(content: bytes, tensor: Floats) -> Floats:
    interpreter = require("ai_edge_litert.interpreter").Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
