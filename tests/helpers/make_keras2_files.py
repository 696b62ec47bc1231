"""Write `models/keras2/`: what TensorFlow's own Keras 2 saved, and what it answered.

Run it with TensorFlow 2.12 and with TensorFlow 2.15 and tensorflow-model-optimization, in an
environment each: `python tests/helpers/make_keras2_files.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "models" / "keras2"
SHAPE = (16, 16, 3)


def body(keras: Any, name: str, outputs: int = 1) -> Any:
    """Return a small network without its top, [n, 16, 16, 3] -> [n, 8, 8, 4], once or twice."""
    layers, image = keras.layers, keras.Input(SHAPE)
    value = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(image)
    value = layers.ReLU(6.0)(layers.BatchNormalization()(value))
    value = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(value)
    last = layers.ReLU(6.0)(layers.BatchNormalization()(value))
    return keras.Model(image, last if outputs == 1 else [value, last], name=name)


def transfer(keras: Any, tf: Any) -> Any:
    """Return the model of the transfer-learning tutorial: augmentation, preprocess_input, base."""
    layers, image = keras.layers, keras.Input(SHAPE)
    value = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(image)
    value = keras.applications.mobilenet_v2.preprocess_input(value)
    value = body(keras, "base")(value, training=False)
    value = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(value))
    return keras.Model(image, layers.Dense(1, activation="sigmoid")(value))


def teachable(keras: Any, tf: Any) -> Any:
    """Return a model as Teachable Machine nests it."""
    layers = keras.layers
    features = keras.Sequential([body(keras, "model1"), layers.GlobalAveragePooling2D()])
    top = keras.Sequential(
        [
            layers.Dense(6, activation="relu", input_shape=(4,)),
            layers.Dense(3, activation="softmax", use_bias=False),
        ]
    )
    return keras.Sequential([features, top])


def twice(keras: Any, tf: Any) -> Any:
    """Return a model that calls a nested one and a layer twice, and takes several outputs."""
    layers, image = keras.layers, keras.Input(SHAPE)
    shared, dense = body(keras, "shared", outputs=2), layers.Dense(4, activation="hard_sigmoid")
    first, second = shared(image / 255.0), shared(tf.reverse(image, [-1]) / 127.5 - 1)
    values = [layers.GlobalAveragePooling2D()(each) for each in (*first, *second)]
    value = layers.Concatenate()([dense(values[1]), dense(tf.nn.relu6(values[2])), values[3]])
    inner = keras.Sequential([keras.Sequential([layers.Dense(5, name="a/b", input_shape=(12,))])])
    return keras.Model(image, layers.Activation("softmax")(inner(value)))


def unlike(keras: Any, tf: Any) -> Any:
    """Return a model with functions that have no equal in Keras 3."""
    layers, image = keras.layers, keras.Input(SHAPE)
    value = tf.nn.local_response_normalization(layers.Conv2D(4, 3)(image / 255.0))
    value = layers.GlobalAveragePooling2D()(value)
    return keras.Model(image, layers.Dense(5, activation="softmax")(value))


def pruned(keras: Any, tf: Any) -> Any:
    """Return a model inside tfmot's pruning wrappers, half of each kernel zero."""
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=1)
    layers, prune = keras.layers, tfmot.sparsity.keras.prune_low_magnitude
    pruned = [
        layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.SeparableConv2D(4, 3, strides=2),
        layers.Flatten(),
        layers.Dense(5, activation="softmax"),
    ]
    wrappers = [prune(layer, pruning_schedule=schedule) for layer in pruned]
    wrapped = keras.Sequential([layers.Rescaling(1 / 255, input_shape=SHAPE), *wrappers])
    wrapped.compile("sgd", "mse")
    images = np.random.default_rng(0).uniform(0, 255, (8, *SHAPE)).astype(np.float32)
    step = tfmot.sparsity.keras.UpdatePruningStep()
    wrapped.fit(images, np.zeros((8, 5)), verbose=0, callbacks=[step])
    return wrapped


MODELS: dict[str, Callable[[Any, Any], Any]] = {
    "teachable": teachable,
    "transfer": transfer,
    "twice": twice,
    "unlike": unlike,
}


def randomised(model: Any) -> Any:
    """Return the model with no zero of a bias or a norm by luck."""
    for seed, weight in enumerate(model.weights):
        if weight.dtype == "float32":
            noise = 0.3 * np.random.default_rng(seed).normal(size=weight.shape)
            weight.assign_add(np.abs(noise) if "variance" in weight.name else noise)
    return model


def main() -> None:
    import tensorflow as tf

    keras, version = tf.keras, ".".join(tf.__version__.split(".")[:2])
    images = np.random.default_rng(0).uniform(0, 255, (4, *SHAPE)).astype(np.float32)
    answers: dict[str, Any] = {"images": images}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        keras.utils.set_random_seed(1)
        model = randomised(make(keras, tf))
        answers[name] = model.predict(images, verbose=0)
        model.save(FOLDER / f"{name}-{version}.h5")
        # Unasked, 2.12 writes HDF5 into a file called .keras.
        form = "keras_v3" if version == "2.12" else "keras"
        model.save(FOLDER / f"{name}-{version}.keras", save_format=form)
        if name == "teachable":
            (FOLDER / f"{name}-{version}.json").write_text(model.to_json())
            model.save_weights(FOLDER / f"{name}-{version}.weights.h5")
    if version == "2.15":
        model = pruned(keras, tf)
        answers["pruned"] = model.predict(images, verbose=0)
        model.save(FOLDER / f"pruned-{version}.h5", include_optimizer=False)
        model.save(FOLDER / f"pruned-{version}.keras")
    np.savez_compressed(FOLDER / f"answers-{version}.npz", **answers)


if __name__ == "__main__":
    main()
