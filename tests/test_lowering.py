"""Lowered layers are the same functions, in words that the toolkits have."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import families
import nets
from kedge_convert.export import tflite_converter, tflite_static
from kedge_convert.export.exported import Scheme
from kedge_convert.prepare import preparation
from kedge_convert.rewrite import lowering
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SHAPE = (6, 5, 8)
Build = Callable[[Any, Any], Any]

# Name -> (what makes it of keras and a symbol, how the notes call it).
CASES: dict[str, tuple[Build, str]] = {
    "hard_swish": (lambda k, x: k.layers.Activation("hard_swish")(x), "hard_silu"),
    "in a dense layer": (lambda k, x: k.layers.Dense(4, activation="hard_silu")(x), "hard_silu"),
    "in a convolution": (lambda k, x: k.layers.Conv2D(4, 3, activation="elu")(x), "elu"),
    "selu": (lambda k, x: k.layers.Activation("selu")(x), "selu"),
    "operation": (lambda k, x: k.ops.hard_silu(x), "HardSilu"),
    "negative": (lambda k, x: -x, "Negative"),
    "square": (lambda k, x: k.ops.square(x), "Square"),
    "prelu": (lambda k, x: k.layers.PReLU(alpha_initializer="uniform")(x), "PReLU"),
    "layer norm": (lambda k, x: k.layers.LayerNormalization()(x), "LayerNormalization"),
    "bare norm": (
        lambda k, x: k.layers.LayerNormalization(scale=False, center=False, epsilon=0.1)(x),
        "LayerNormalization",
    ),
    "depthwise": (
        lambda k, x: k.layers.Conv2D(24, (3, 2), groups=8, strides=2, padding="same")(x),
        "",
    ),
    "dilated": (
        lambda k, x: k.layers.Conv2D(8, 3, groups=8, dilation_rate=2, use_bias=False)(x),
        "",
    ),
}


def model_of(build: Build) -> Any:
    keras = require("keras")
    keras.utils.set_random_seed(0)
    picture = keras.Input(SHAPE)
    model = keras.Model(picture, build(keras, picture))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0.5, 0.5, weight.shape))
    return model


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same_function_and_nothing_is_left_to_lower(name: str) -> None:
    build, called = CASES[name]
    model = model_of(build)
    lowered = lowering.lower(model, lowering.INT16X8)
    pictures = np.random.default_rng(1).uniform(-5, 5, (4, *SHAPE)).astype(np.float32)
    expected = model.predict_on_batch(pictures)
    np.testing.assert_allclose(
        lowered.model.predict_on_batch(pictures), expected, rtol=1e-4, atol=1e-5
    )
    noted = called and (f"{called} written out in plainer operators (1x)",)
    assert lowered.notes == (noted or ())
    assert lowering.lower(lowered.model, lowering.INT16X8).model is lowered.model


TF2ONNX: dict[str, Build] = {
    "gelu": lambda k, x: k.layers.Conv2D(4, 3, activation="gelu")(x),
    "gelu operation": lambda k, x: k.ops.gelu(x, approximate=False),
    "groups": lambda k, x: k.layers.Conv2D(12, 3, groups=4, strides=2, activation="relu")(x),
    "bare groups": lambda k, x: k.layers.Conv2D(4, 3, groups=2, use_bias=False)(x),
}


@pytest.mark.parametrize("name", TF2ONNX)
def test_what_tf2onnx_leaves_alone_is_the_same_function_too(name: str) -> None:
    model = model_of(TF2ONNX[name])
    lowered = lowering.lower(model, lowering.TF2ONNX).model
    assert lowered is not model
    pictures = np.random.default_rng(1).uniform(-5, 5, (4, *SHAPE)).astype(np.float32)
    expected = model.predict_on_batch(pictures)
    np.testing.assert_allclose(lowered.predict_on_batch(pictures), expected, rtol=1e-4, atol=1e-5)
    assert lowering.lower(lowered, lowering.TF2ONNX).model is lowered


LEFT = {
    "plain convolution": lambda k, x: k.layers.Conv2D(8, 3)(x),
    "true groups": lambda k, x: k.layers.Conv2D(8, 3, groups=2)(x),
    "two strides": lambda k, x: k.layers.Conv2D(8, 3, groups=8, strides=(1, 2))(x),
    "relu": lambda k, x: k.layers.ReLU(6.0)(x),
    "norm over rows": lambda k, x: k.layers.LayerNormalization(axis=[1, 2])(x),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_no_rule_knows_stays_the_very_same_model(name: str) -> None:
    model = model_of(LEFT[name])
    lowered = lowering.lower(model, lowering.INT16X8)
    assert lowered.model is model
    assert lowered.notes == ()


def test_a_layer_that_is_called_twice_keeps_one_set_of_weights() -> None:
    def twice(keras: Any, value: Any) -> Any:
        layer = keras.layers.Conv2D(8, 3, groups=8, padding="same")
        return layer(layer(value))

    model = model_of(twice)
    lowered = lowering.lower(model)
    assert lowered.model.count_params() == model.count_params()
    pictures = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    expected = model.predict_on_batch(pictures)
    np.testing.assert_allclose(
        lowered.model.predict_on_batch(pictures), expected, rtol=1e-4, atol=1e-5
    )


def test_names_that_keras_would_give_are_no_clash() -> None:
    keras = require("keras")
    picture = keras.Input(SHAPE)
    keras.utils.clear_session()  # as for a model that was loaded: its names aren't counted
    value = keras.layers.Add(name="add")([picture, keras.ops.relu(picture)])
    value = keras.layers.Activation("hard_swish", name="multiply")(value)
    value = keras.layers.Activation("hard_swish", name="add_1")(value)
    model = keras.Model(picture, value)
    assert len(lowering.lower(model, lowering.INT16X8).model.layers) == len(model.layers)


def test_what_is_lowered_can_be_prepared() -> None:
    grouped, _ = CASES["depthwise"]
    model = model_of(grouped)
    for each in (model, lowering.lower(model).model):
        assert nets.untreated(preparation.plan(each)) == []


EXPONENTIALS: dict[str, Build] = {
    "softplus": lambda k, x: k.layers.Conv2D(4, 3, activation="softplus")(x),
    "log_sigmoid": lambda k, x: k.layers.Activation("log_sigmoid")(x),
    "mish": lambda k, x: k.layers.Dense(4, activation="mish")(x),
    "softplus operation": lambda k, x: k.ops.softplus(x),
    "log_sigmoid operation": lambda k, x: k.ops.log_sigmoid(x),
    "selu": lambda k, x: k.layers.Conv2D(4, 3, activation="selu")(x),
    "celu": lambda k, x: k.layers.Activation("celu")(x),
    "selu operation": lambda k, x: k.ops.selu(x),
}


def _int8(model: Any, pictures: Floats) -> bytes:
    """Return the file with all but its I/O in int8."""
    floats = tflite_converter.float32(families.source_of(model))
    ranges = tflite_static.minmax(floats, (each[None] for each in pictures))
    return tflite_static.quantise(floats, ranges, scheme=Scheme("float32", "float32"))


def _answers(content: bytes, pictures: Floats) -> Floats:
    interpreter = require("ai_edge_litert.interpreter").Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for each in pictures:
        interpreter.set_tensor(taken["index"], each[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"]))
    return np.concatenate(rows)


@pytest.mark.parametrize("name", EXPONENTIALS)
def test_an_exponential_takes_no_answer_from_int8(name: str) -> None:
    """TensorFlow's own way loses all but the largest: exp(22) sets the range."""
    model = model_of(EXPONENTIALS[name])
    pictures = np.random.default_rng(1).normal(0, 6, (40, *SHAPE)).astype(np.float32)
    expected = model.predict_on_batch(pictures)
    error = _answers(_int8(model, pictures), pictures) - expected
    assert np.sqrt((error**2).mean()) < 0.05 * np.sqrt((expected**2).mean())
    assert lowering.lower(model, lowering.TFLITE).model is not model


@pytest.mark.parametrize("name", EXPONENTIALS)
def test_an_exponential_stays_finite_in_float32(name: str) -> None:
    model = model_of(EXPONENTIALS[name])
    pictures = np.linspace(-120, 120, int(np.prod(SHAPE)), dtype=np.float32).reshape(1, *SHAPE)
    expected = model.predict_on_batch(pictures)
    answers = _answers(tflite_converter.float32(families.source_of(model)), pictures)
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-4)
