"""The scripts that people write instead of `kedge convert`, one a target, each with its check.

    python benchmarks/stock_scripts.py TARGET MODEL.keras IMAGES

Each loads the model and the images by Keras, converts by the target's own converter, and compares
the classes of 100 other images with the float model's, by LiteRT or onnxruntime. It prints the
share that agrees. `benchmarks/side_by_side.py` runs them.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION, CHECK = 200, 100


def load(paths: list[Path], size: tuple[int, int]) -> Any:
    """Return images as Keras loads them, float32 [n, h, w, 3], from -1 to 1."""
    import keras

    images = [keras.utils.load_img(path, target_size=size) for path in paths]
    pixels = np.stack([keras.utils.img_to_array(image) for image in images])
    return pixels / np.float32(127.5) - np.float32(1)


def tflite(model: Any, images: Any, precision: str) -> bytes:
    """Convert as TensorFlow's guide to post-training quantisation does."""
    import tensorflow as tf

    def representative() -> Iterator[list[Any]]:
        for image in images[:CALIBRATION]:
            yield [image[None]]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    sets = tf.lite.OpsSet
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in ("int8", "int16x8"):
        converter.representative_dataset = representative
    if precision == "int8":
        converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    if precision == "int16x8":
        converter.target_spec.supported_ops = [
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
        converter.inference_input_type = converter.inference_output_type = tf.int16
    return bytes(converter.convert())


def run_tflite(content: bytes, images: Any) -> Any:
    """Return the classes of images, [n], by LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = taken["quantization"]
    found = []
    for image in images:
        value = image[None]
        if scale:
            value = np.round(value / scale + zero)
        limits = np.iinfo(taken["dtype"]) if scale else None
        value = value.clip(limits.min, limits.max) if limits else value
        interpreter.set_tensor(taken["index"], value.astype(taken["dtype"]))
        interpreter.invoke()
        found.append(int(interpreter.get_tensor(given["index"])[0].argmax()))
    return np.array(found)


def onnx(model: Any, images: Any, precision: str) -> bytes:
    """Convert by tf2onnx; int8 by onnxruntime's quantize_static."""
    import tensorflow as tf
    import tf2onnx

    shape = (1, *model.inputs[0].shape[1:])
    signature = [tf.TensorSpec(shape, tf.float32, name="input")]
    function = tf.function(lambda input: model(input, training=False), input_signature=signature)
    Path("float32.onnx").write_bytes(
        tf2onnx.convert.from_function(function, signature, opset=17)[0].SerializeToString()
    )
    if precision == "int8":
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.images = iter(images[:CALIBRATION])

            def get_next(self) -> dict[str, Any] | None:
                image = next(self.images, None)
                return None if image is None else {"input": image[None]}

        quant_pre_process("float32.onnx", "prepared.onnx", skip_symbolic_shape=True)
        quantization.quantize_static(
            "prepared.onnx",
            "int8.onnx",
            Reader(),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QInt8,
        )
    return Path(f"{precision}.onnx").read_bytes()


def run_onnx(content: bytes, images: Any) -> Any:
    """Return the classes of images, [n], by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content)
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: image[None]})[0].argmax() for image in images])


Convert, Run = Callable[[Any, Any, str], bytes], Callable[[bytes, Any], Any]
FORMATS: dict[str, tuple[Convert, Run]] = {"tflite": (tflite, run_tflite), "onnx": (onnx, run_onnx)}
TARGETS = (
    *(f"tflite:{each}" for each in ("float32", "float16", "dynamic", "int8", "int16x8")),
    *("onnx:float32", "onnx:int8"),
)


def main(target: str, path: str, folder: str) -> None:
    """Convert, check, and print the agreement."""
    import keras

    format, _, precision = target.partition(":")
    convert, run = FORMATS[format]
    model = keras.models.load_model(path, compile=False)
    paths = sorted(each for each in Path(folder).iterdir() if each.is_file())
    images = load(paths[: CALIBRATION + CHECK], model.inputs[0].shape[1:3])
    content = convert(model, images, precision)
    others = images[CALIBRATION:]
    wanted = model.predict(others, verbose=0).argmax(axis=1)
    print(
        f"{target}: {len(content)} bytes, agreement {(run(content, others) == wanted).mean():.3f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("path", metavar="MODEL.keras")
    parser.add_argument("folder", metavar="IMAGES")
    main(**vars(parser.parse_args()))
