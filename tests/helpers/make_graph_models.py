"""Write `models/graphs/`: what TensorFlow 2.15 and its model optimisation made, and their answers.

Needs an environment of its own, Python 3.11: `python -m venv v; v/bin/pip install
tensorflow==2.15.1 tensorflow-model-optimization==0.8.0`, then
`v/bin/python tests/helpers/make_graph_models.py`.
"""

import os
import shutil
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


FOLDER = Path(__file__).parents[1] / "models" / "graphs"
SHAPE = (16, 16, 3)
CLASSES = 5
PICTURES = np.random.default_rng(0).uniform(-1, 1, (8, *SHAPE)).astype(np.float32)


def mobile(keras: Any) -> Any:
    """Convolutions with norms, depthwise ones, a sum, and a softmax in the last layer."""
    layers, image = keras.layers, keras.Input(SHAPE)
    value = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(image)
    value = layers.ReLU(6.0)(layers.BatchNormalization()(value))
    value = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(value)
    value = layers.ReLU()(layers.BatchNormalization()(value))
    value = layers.Add()([value, layers.Conv2D(6, 1, activation="relu")(value)])
    value = layers.GlobalAveragePooling2D()(value)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(value))


def plain(keras: Any) -> Any:
    """Pooling, Flatten, Dropout, and the softmax in a layer of its own."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Conv2D(4, 3, activation="relu", input_shape=SHAPE),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(CLASSES),
            layers.Activation("softmax"),
        ]
    )


def binary(keras: Any) -> Any:
    """One sigmoid."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Conv2D(8, 3, strides=2, activation="relu", input_shape=SHAPE),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def trained(tf: Any, tfmot: Any, model: Any) -> Any:
    """Return the quantisation-aware model of a network, its ranges learned."""
    aware = tfmot.quantization.keras.quantize_model(model)
    units = model.output_shape[-1]
    loss = "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy"
    aware.compile(tf.keras.optimizers.Adam(0.002), loss)
    rng = np.random.default_rng(1)
    pictures = rng.uniform(-1, 1, (256, *SHAPE)).astype(np.float32)
    labels = rng.integers(0, max(units, 2), 256)
    pictures += (labels[:, None, None, None] - (max(units, 2) - 1) / 2) / 4
    aware.fit(pictures, labels, epochs=80, batch_size=8, verbose=0)
    return aware


def module(tf: Any, model: Any, folder: Path) -> None:
    """Save a SavedModel of nothing but one signature."""

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32)])  # type: ignore[untyped-decorator]
        def run(self, images: Any) -> Any:
            return {"answer": model(images, training=False)}

    made = Module()
    made.kept = model.variables
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    tf.saved_model.save(made, str(folder), signatures=made.run, options=options)


def integers(tf: Any, model: Any) -> dict[str, Any]:
    """Return the scales and int8 kernels of TensorFlow 2.15's own TFLite file of a model."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    details = [each for each in interpreter.get_tensor_details() if each["dtype"] == np.int8]
    one = [each for each in details if len(each["quantization_parameters"]["scales"]) == 1]
    made = {index for each in interpreter._get_ops_details() for index in each["outputs"]}
    made |= {each["index"] for each in interpreter.get_input_details()}
    kernels = {
        each["index"]: interpreter.get_tensor(each["index"])
        for each in details
        # What the interpreter adds for itself has no name.
        if each["index"] not in made and len(each["shape"]) > 1 and each["name"]
    }
    found = {f"kernel{i}": each for i, each in enumerate(kernels.values())}
    found["scales"] = np.unique([each["quantization"][0] for each in one]).astype(np.float32)
    return found


def pack(name: str) -> None:
    """Put the files of a model, which are three times as large, into an archive."""
    paths = [FOLDER / f"{name}.h5", FOLDER / f"{name}.keras", FOLDER / name]
    with zipfile.ZipFile(FOLDER / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted([*paths[:2], *(each for each in paths[2].rglob("*") if each.is_file())]):
            archive.write(path, path.relative_to(FOLDER))
            path.unlink()
    shutil.rmtree(paths[2])


def aware(tf: Any) -> dict[str, Any]:
    """Write the quantisation-aware models; return their answers and integers."""
    tfmot = import_module("tensorflow_model_optimization")

    answers: dict[str, Any] = {}
    for make in (mobile, plain, binary):
        tf.keras.utils.set_random_seed(0)
        model, name = trained(tf, tfmot, make(tf.keras)), make.__name__
        model.save(FOLDER / f"aware_{name}.h5", include_optimizer=False)
        model.save(FOLDER / f"aware_{name}.keras")
        module(tf, model, FOLDER / f"aware_{name}")
        pack(f"aware_{name}")
        answers[f"aware_{name}"] = model.predict(PICTURES, verbose=0)
        answers |= {f"{name}_{key}": each for key, each in integers(tf, model).items()}
    return answers


def network(tf: Any, image: Any) -> Any:
    """Return the logits of a small network in TensorFlow 1's way."""
    v1, rng = tf.compat.v1, np.random.default_rng(2)

    def weights(name: str, *shape: int) -> Any:
        return v1.get_variable(name, initializer=rng.normal(0, 0.5, shape).astype(np.float32))

    value = tf.nn.conv2d(image, weights("conv/kernel", 3, 3, 3, 4), 2, "SAME", name="conv/Conv2D")
    value = tf.nn.relu(tf.nn.bias_add(value, weights("conv/bias", 4)))
    value = tf.reduce_mean(value, (1, 2), name="pool")
    value = tf.matmul(value, weights("dense/kernel", 4, CLASSES), name="dense/MatMul")
    return tf.nn.bias_add(value, weights("dense/bias", CLASSES), name="logits")


def one_output(tf: Any, image: Any) -> dict[str, Any]:
    return {"softmax": tf.nn.softmax(network(tf, image), name="softmax")}


def two_outputs(tf: Any, image: Any) -> dict[str, Any]:
    """Two heads, one of them without a softmax."""
    logits = network(tf, image)
    doubled = tf.multiply(logits, 2.0, name="doubled")
    return {"doubled": doubled, "softmax": tf.nn.softmax(logits, name="softmax")}


def defaults(tf: Any, image: Any) -> dict[str, Any]:
    """Dropout whose rate has a default of none."""
    rate = tf.compat.v1.placeholder_with_default(np.float32(0), (), "rate")
    value = tf.nn.dropout(image, rate=rate, name="dropout")
    return {"softmax": tf.nn.softmax(network(tf, value), name="softmax")}


def switched(tf: Any, image: Any) -> dict[str, Any]:
    """A batch norm that a placeholder tells whether it is trained."""
    training = tf.compat.v1.placeholder_with_default(False, (), "is_training")
    value = tf.cond(training, lambda: image * 3.0, lambda: image * 1.5)
    return {"softmax": tf.nn.softmax(network(tf, value), name="softmax")}


def undecided(tf: Any, image: Any) -> dict[str, Any]:
    """Dropout whose rate must be fed."""
    keep = tf.compat.v1.placeholder(tf.float32, (), "keep_prob")
    value = tf.compat.v1.nn.dropout(image, keep_prob=keep, name="dropout")
    return {"softmax": tf.nn.softmax(network(tf, value), name="softmax")}


def decoding(tf: Any, image: Any) -> dict[str, Any]:
    """Files of pictures in, as in TensorFlow's first Inception."""
    content = tf.compat.v1.placeholder(tf.string, (), "contents")
    pixels = tf.cast(tf.image.decode_jpeg(content, channels=3), tf.float32)[None]
    resized = tf.compat.v1.image.resize_bilinear(pixels, SHAPE[:2])
    return {"softmax": tf.nn.softmax(network(tf, resized), name="softmax")}


def frozen(tf: Any) -> dict[str, Any]:
    """Write the frozen graphs; return their answers."""
    answers: dict[str, Any] = {}
    for build in (one_output, two_outputs, defaults, switched, undecided, decoding):
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph, v1.Session() as session:
            v1.disable_control_flow_v2()
            image = v1.placeholder(tf.float32, (None, *SHAPE), "image")
            ends = build(tf, image)
            session.run(v1.global_variables_initializer())
            names = list(ends)
            definition = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), names
            )
            if build not in (undecided, decoding):
                given = session.run(ends, {image: PICTURES})
                answers |= {f"{build.__name__}_{key}": each for key, each in given.items()}
        (FOLDER / f"{build.__name__}.pb").write_bytes(definition.SerializeToString())
    return answers


def main() -> None:
    import tensorflow as tf

    FOLDER.mkdir(exist_ok=True)
    answers = {"pictures": PICTURES} | aware(tf) | frozen(tf)
    np.savez_compressed(FOLDER / "answers.npz", **answers)
    for path in sorted(each for each in FOLDER.rglob("*") if each.is_file()):
        sys.stdout.write(f"{path.relative_to(FOLDER)} {path.stat().st_size}\n")


if __name__ == "__main__":
    main()
