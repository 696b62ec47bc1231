"""Keras to TFLite through TensorFlow's converter."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kedge_convert.errors import ConversionError, one_line
from kedge_convert.photos import Tick, tensors
from kedge_convert.source import Source
from kedge_convert.toolkit import quiet, require
from kedge_runtime.contract import Precision
from kedge_runtime.errors import KedgeError


def export(source: Source, precision: Precision, calibration: Sequence[Path], tick: Tick) -> bytes:
    """Return the flatbuffer of `source` in `precision`; batch 1, int8 in and out for int8."""
    tf = require("tensorflow")
    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(single(source))
        RECIPES[precision](tf, converter, _samples(source, calibration, tick))
        return _converted(converter, source.name, precision)


def _converted(converter: Any, name: str, precision: Precision) -> bytes:
    try:
        content: bytes = converter.convert()
    # What the model's own pictures raise is the user's; the rest is MLIR, whatever its type.
    except KedgeError:
        raise
    except Exception as error:
        raise ConversionError(
            f"{name}: TensorFlow can't convert it to tflite:{precision}: {one_line(error)}"
        ) from error
    return content


def single(source: Source) -> Any:
    """Return the model with batch 1: an open batch adds shape arithmetic that delegates refuse."""
    keras = require("keras")
    _, height, width, channels = source.model.inputs[0].shape
    picture = keras.Input(batch_shape=(1, height, width, channels), name="input")
    return keras.Model(picture, source.model(picture), name=source.model.name)


Samples = Callable[[], Iterator[list[Any]]]


def _samples(source: Source, calibration: Sequence[Path], tick: Tick) -> Samples:
    def generate() -> Iterator[list[Any]]:
        for tensor in tensors(calibration, source.input):
            tick()
            yield [tensor]

    return generate


def _float32(tf: Any, converter: Any, samples: Samples) -> None:
    pass


def _dynamic(tf: Any, converter: Any, samples: Samples) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _float16(tf: Any, converter: Any, samples: Samples) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _int8(tf: Any, converter: Any, samples: Samples) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


RECIPES: dict[Precision, Callable[[Any, Any, Samples], None]] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic": _dynamic,
    "int8": _int8,
}
