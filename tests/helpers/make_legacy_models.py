"""Write `models/legacy/`: what Keras 2 saved, by the real thing, and its answers.

Needs `tf_keras` (Keras 2 for TensorFlow 2.16 and later), in an environment of its own:
`python -m venv v; v/bin/pip install tf_keras; v/bin/python tests/helpers/make_legacy_models.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "models" / "legacy"
SHAPE = (8, 8, 3)


def sequential(keras: Any, tf: Any) -> Any:
    """Layers whose arguments have changed: axis as a list, `groups`, `alpha`, no InputLayer."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Rescaling(1 / 50, offset=-2, input_shape=SHAPE),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.LeakyReLU(alpha=0.2),
            layers.SeparableConv2D(6, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def functions(keras: Any, tf: Any) -> Any:
    """TensorFlow's functions in the graph, `/` in names, and the old hard_sigmoid."""
    layers, image = keras.layers, keras.Input(SHAPE)
    value = keras.applications.mobilenet_v2.preprocess_input(image)
    value = layers.Conv2D(4, 3, name="block/conv")(value)
    value = value * tf.nn.relu6(value + 3.0) / 6.0
    value = layers.Activation("hard_sigmoid")(2.0 * value - 1.0)
    value = layers.GlobalAveragePooling2D()(value)
    return keras.Model(image, layers.Dense(5, activation="softmax", name="top/dense")(value))


def reversed_channels(keras: Any, tf: Any) -> Any:
    """What ResNet50 is fed, inside the model: BGR less the mean."""
    layers, image = keras.layers, keras.Input(SHAPE)
    value = layers.Conv2D(4, 3)(keras.applications.resnet50.preprocess_input(image) / 100.0)
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(value)))


def nested(keras: Any, tf: Any) -> Any:
    """Models in a model, one for training only, and Rescaling."""
    layers, image = keras.layers, keras.Input(SHAPE)
    value = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)])(image)
    value = layers.Rescaling(1 / 127.5, offset=-1)(value)
    inner = keras.Sequential([layers.Conv2D(4, 3, input_shape=SHAPE)], name="in/ner")
    value = layers.Flatten()(inner(value))
    return keras.Model(image, layers.Dense(5, activation="sigmoid")(value))


MODELS: dict[str, Callable[[Any, Any], Any]] = {
    "functions": functions,
    "nested": nested,
    "reversed_channels": reversed_channels,
    "sequential": sequential,
}


def main() -> None:
    import tensorflow as tf
    import tf_keras

    pictures = np.random.default_rng(0).uniform(0, 255, (4, *SHAPE)).astype(np.float32)
    answers: dict[str, Any] = {"pictures": pictures}
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, make) in enumerate(MODELS.items()):
        tf_keras.utils.set_random_seed(seed)
        model = make(tf_keras, tf)
        for weight in model.weights:  # no zero of a bias or a norm by luck
            noise = 0.2 * np.random.default_rng(seed).normal(size=weight.shape)
            weight.assign_add(np.abs(noise) if weight.dtype == tf.float32 else noise * 0)
        model.save(FOLDER / f"{name}.h5")
        answers[name] = model.predict(pictures, verbose=0)
    model.save_weights(FOLDER / "sequential.weights.h5")
    model.save_weights(FOLDER / "sequential_by_order.h5")
    model.save(FOLDER / "sequential", save_format="tf")
    np.savez_compressed(FOLDER / "answers.npz", **answers)


if __name__ == "__main__":
    main()
