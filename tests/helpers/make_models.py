"""Make `models/tiny.onnx` and `models/tiny.tflite`, which the runtime's tests run, and a float one.

Run it again after a change: `python tests/helpers/make_models.py` (needs keras-kedge[convert]). The
weights are set by hand so that an image of one colour has a known answer: red, green, blue, dark.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(__file__).parents[1] / "models"

# One row per channel of the mean colour in -1..1, one column per class.
WEIGHTS = np.array([[4, 0, 0, -2], [0, 4, 0, -2], [0, 0, 4, -2]], np.float32)


def tiny_onnx() -> bytes:
    """Return float32 [1, 8, 8, 3] -> mean over the picture -> MatMul -> "logits" [1, 4]."""
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(WEIGHTS, "weights"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="kedge")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_tflite() -> bytes:
    """Return an int8 network [1, 16, 16, 3] -> Conv, mean, Dense -> [1, 4]."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(_network())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _colours
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _network() -> Any:
    import keras

    source = keras.Input(batch_shape=(1, 16, 16, 3))
    values = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="colours")(source)
    values = keras.layers.GlobalAveragePooling2D()(values)
    model = keras.Model(source, keras.layers.Dense(4, name="logits")(values))
    means = np.concatenate([np.eye(3), np.full((3, 1), -1 / 3)], axis=1)
    kernel = np.broadcast_to(means / 9, (3, 3, 3, 4))
    model.get_layer("colours").set_weights([kernel, np.zeros(4)])
    model.get_layer("logits").set_weights([4 * np.eye(4), np.zeros(4)])
    return model


def float_tflite() -> bytes:
    """Return a float network [1, 16, 16, 3] -> [1, 5] of many kinds of operators."""
    import tensorflow as tf

    return bytes(tf.lite.TFLiteConverter.from_keras_model(_many_kinds()).convert())


def _many_kinds() -> Any:
    import keras

    keras.utils.set_random_seed(17)
    layers = keras.layers
    source = keras.Input(batch_shape=(1, 16, 16, 3))
    values = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(source)
    inner = layers.DepthwiseConv2D(3, padding="same", activation="relu")(values)
    values = layers.Add()([values, layers.Conv2D(8, 1)(inner)])
    values = layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(values))
    values = layers.Concatenate()([values, layers.LeakyReLU(negative_slope=0.1)(values)])
    gate = layers.Conv2D(16, 1, activation="sigmoid")(
        layers.GlobalAveragePooling2D(keepdims=True)(values)
    )
    values = layers.AveragePooling2D(2)(layers.Multiply()([values, gate]))
    values = layers.Conv2DTranspose(4, 2, strides=2)(values)
    return keras.Model(source, layers.Dense(5, activation="softmax")(layers.Flatten()(values)))


def _colours() -> Any:
    for corner in np.ndindex(2, 2, 2):
        colour = np.array(corner, np.float32) * 2 - 1
        yield [np.broadcast_to(colour, (1, 16, 16, 3))]


if __name__ == "__main__":
    MODELS.mkdir(exist_ok=True)
    (MODELS / "tiny.onnx").write_bytes(tiny_onnx())
    (MODELS / "tiny.tflite").write_bytes(tiny_tflite())
    (MODELS / "float.tflite").write_bytes(float_tflite())
