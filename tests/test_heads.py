"""Where the logits are: whatever way a classifier ends, softmax runs once, on the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert import heads
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.head import ACTIVATIONS

CLASSES = 5


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    keras = require("keras")
    keras.utils.set_random_seed(3)
    return keras


def picture(keras: Any) -> Any:
    return keras.Input((8, 9, 3))


def body(keras: Any, image: Any) -> Any:
    features = keras.layers.Conv2D(6, 3, activation="relu")(image)
    return keras.layers.GlobalAveragePooling2D()(features)


def functional(keras: Any, end: Callable[[Any], Any]) -> Any:
    image = picture(keras)
    return keras.Model(image, end(body(keras, image)), name="mine")


def dense(keras: Any, activation: Any = None) -> Any:
    # Large weights: small logits would hide a softmax that is taken twice.
    spread = keras.initializers.RandomNormal(stddev=2.0, seed=4)
    return keras.layers.Dense(CLASSES, activation, kernel_initializer=spread)


def ending(keras: Any, *layers: Any) -> Any:
    def end(tensor: Any) -> Any:
        for layer in layers:
            tensor = layer(tensor)
        return tensor

    return functional(keras, end)


def sequential(keras: Any, *layers: Any) -> Any:
    pooling = [keras.layers.Conv2D(6, 3), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([picture(keras), *pooling, *layers], name="mine")


def nested(keras: Any, kind: str) -> Any:
    features = keras.Input((6,))
    layer = dense(keras, "softmax")
    inner = keras.Model(features, layer(features)) if kind == "functional" else None
    inner = inner or keras.Sequential([features, layer])
    return ending(keras, inner)


def reshaped(keras: Any) -> Any:
    """End as MobileNet V1 does: a 1x1 convolution, Reshape, Activation."""
    layers = keras.layers
    convolution = layers.Conv2D(CLASSES, 1)
    ends = (layers.Reshape((1, 1, 6)), convolution, layers.Reshape((CLASSES,)))
    return ending(keras, *ends, layers.Activation("softmax"))


def named_ends(keras: Any) -> Any:
    image = keras.Input((8, 9, 3), name="image")
    return keras.Model({"image": image}, {"scores": dense(keras, "softmax")(body(keras, image))})


def linear_named_ends(keras: Any) -> Any:
    image = keras.Input((8, 9, 3), name="image")
    return keras.Model({"image": image}, {"scores": dense(keras)(body(keras, image))})


MODELS: dict[str, Callable[[Any], Any]] = {
    "softmax in Dense": lambda k: ending(k, dense(k, "softmax")),
    "softmax in an Activation": lambda k: ending(k, dense(k), k.layers.Activation("softmax")),
    "a Softmax layer": lambda k: ending(k, dense(k), k.layers.Softmax()),
    "a Softmax layer as activation": lambda k: ending(k, dense(k, k.layers.Softmax())),
    "keras.ops.softmax": lambda k: ending(k, dense(k), k.ops.softmax),
    "sigmoid in Dense": lambda k: ending(k, dense(k, "sigmoid")),
    "keras.ops.sigmoid": lambda k: ending(k, dense(k), k.ops.sigmoid),
    "Sequential": lambda k: sequential(k, dense(k, "softmax")),
    "Sequential, then Softmax": lambda k: sequential(k, dense(k), k.layers.Softmax()),
    "nested Functional": lambda k: nested(k, "functional"),
    "nested Sequential": lambda k: nested(k, "sequential"),
    "convolution, Reshape, Activation": reshaped,
    "softmax, then Reshape": lambda k: ending(k, dense(k, "softmax"), k.layers.Reshape((CLASSES,))),
    "softmax, then Dropout": lambda k: ending(k, dense(k, "softmax"), k.layers.Dropout(0.5)),
    "softmax, then a linear Activation": lambda k: ending(
        k, dense(k, "softmax"), k.layers.Activation("linear")
    ),
    "an input and an output with names": named_ends,
}
LINEAR: dict[str, Callable[[Any], Any]] = {
    "Dense": lambda k: ending(k, dense(k)),
    "Sequential": lambda k: sequential(k, dense(k)),
    "log_softmax": lambda k: ending(k, dense(k), k.ops.log_softmax),
    "an input and an output with names": linear_named_ends,
}


def saved(keras: Any, model: Any, folder: Path) -> Any:
    """Return the model as kedge meets it: loaded from a file."""
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras", compile=False)


def answers(model: Any) -> Any:
    tensor = np.random.default_rng(0).normal(0, 9, (7, 8, 9, 3)).astype(np.float32)
    given = model(tensor)
    return np.asarray(given["scores"] if isinstance(given, dict) else given)


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
@pytest.mark.parametrize("name", MODELS)
def test_the_activation_of_the_new_logits_is_the_old_answer(
    keras: Any, tmp_path: Path, name: str
) -> None:
    model = saved(keras, MODELS[name](keras), tmp_path)
    expected = answers(model)
    assert heads.check_classifier(model, "x") == (8, 9, CLASSES)
    logits, activation = heads.to_logits(model, "x")
    assert activation == ("sigmoid" if "sigmoid" in name else "softmax")
    np.testing.assert_allclose(ACTIVATIONS[activation](answers(logits)), expected, atol=1e-6)
    assert np.abs(answers(logits) - expected).max() > 0.01
    assert logits.name == model.name


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
@pytest.mark.parametrize("name", LINEAR)
def test_logits_stay_as_they_are(keras: Any, tmp_path: Path, name: str) -> None:
    model = saved(keras, LINEAR[name](keras), tmp_path)
    expected = answers(model)
    logits, activation = heads.to_logits(model, "x")
    assert activation == "softmax"
    np.testing.assert_array_equal(answers(logits), expected)


def test_an_activation_that_cannot_be_undone_is_named(keras: Any) -> None:
    with pytest.raises(UsageError, match="its last activation is tanh; allowed are softmax"):
        heads.to_logits(ending(keras, dense(keras, "tanh")), "x")


def two_outputs(keras: Any) -> Any:
    image = picture(keras)
    features = body(keras, image)
    return keras.Model(image, [dense(keras)(features), dense(keras)(features)])


def two_inputs(keras: Any) -> Any:
    image, other = picture(keras), keras.Input((6,))
    return keras.Model([image, other], dense(keras)(body(keras, image) + other))


def of_shape(keras: Any, *shape: int | None) -> Any:
    image = keras.Input(shape)
    return keras.Model(image, dense(keras)(keras.layers.GlobalAveragePooling2D()(image)))


def segmentation(keras: Any) -> Any:
    image = picture(keras)
    return keras.Model(image, keras.layers.Conv2D(CLASSES, 1, activation="softmax")(image))


def unbuilt(keras: Any) -> Any:
    return keras.Sequential([keras.layers.GlobalAveragePooling2D(), dense(keras)])


NO_CLASSIFIERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "two outputs": (two_outputs, "one keras.Input and one output"),
    "two inputs": (two_inputs, "one keras.Input and one output"),
    "a map as output": (segmentation, r"output is \(None, 8, 9, 5\)"),
    "one number as output": (lambda k: ending(k, k.layers.Dense(1)), r"output is \(None, 1\)"),
    "grey pictures": (lambda k: of_shape(k, 8, 8, 1), r"input is \(None, 8, 8, 1\)"),
    "an open size": (lambda k: of_shape(k, None, None, 3), "is open: save it with a fixed size"),
    "a Sequential model without input": (unbuilt, "one keras.Input and one output"),
}


@pytest.mark.parametrize("name", NO_CLASSIFIERS)
def test_what_is_no_classifier_is_refused(keras: Any, name: str) -> None:
    make, reason = NO_CLASSIFIERS[name]
    with pytest.raises(UsageError, match=f"^x: .*{reason}"):
        heads.check_classifier(make(keras), "x")


def test_probabilities_are_never_taken_for_logits() -> None:
    softmaxed = np.array([[0.5, 0.25, 0.25], [0.0, 0.9999, 0.0001]], np.float32)
    with pytest.raises(UsageError, match="its answers are probabilities"):
        heads.check_logits(softmaxed, "x")
    heads.check_logits(softmaxed * 2, "x")
    heads.check_logits(softmaxed - 0.1, "x")
