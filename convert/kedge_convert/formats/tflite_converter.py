"""TensorFlow's converter, from a source to bytes; the recipes only settle its options."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kedge_convert import inputs, lowering
from kedge_convert.errors import ConversionError
from kedge_convert.formats.exported import once
from kedge_convert.photos import Tick, tensors
from kedge_convert.scheme import Scheme
from kedge_convert.source import Source
from kedge_convert.toolkit import quiet, require
from kedge_runtime.contract import Precision
from kedge_runtime.errors import KedgeError, one_line

Samples = Callable[[], Iterator[list[Any]]]
# Gets TensorFlow, its converter and the calibration pictures, and settles the converter's options.
Settings = Callable[[Any, Any, Samples], None]


def single(source: Source) -> Any:
    """Return the model with batch 1: an open batch adds shape arithmetic that delegates refuse."""
    return batch_of_one(lowering.lower(source.model, lowering.TFLITE).model)


def batch_of_one(model: Any) -> Any:
    """Return the model with its batch fixed."""
    return inputs.behind(model, (1, *model.inputs[0].shape[1:]))


def converted(model: Any, settings: Settings, samples: Samples, name: str) -> bytes:
    """Return the flatbuffer of a Keras model with batch 1.

    `name`: the model's and target's, for the message. Raises ConversionError.
    """
    tf = require("tensorflow")
    try:
        with quiet():
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            settings(tf, converter, samples)
            content: bytes = converter.convert()
    # What the model's own pictures raise is the user's; the rest is MLIR, whatever its type.
    except KedgeError:
        raise
    except Exception as error:
        raise ConversionError(f"{name}: TensorFlow can't convert it: {one_line(error)}") from error
    return content


def samples(source: Source, calibration: Sequence[Path], tick: Tick) -> Samples:
    """Return what the converter calls for its pictures; each is told to `tick`."""

    def generate() -> Iterator[list[Any]]:
        for tensor in tensors(calibration, source.input):
            tick()
            yield [tensor]

    return generate


def set_dense(scheme: Scheme, converter: Any) -> None:
    """Have dense layers quantised with a scale per output or with one for all."""
    one = not scheme.per_channel_dense
    converter._experimental_disable_per_channel_quantization_for_dense_layers = one


@once
def float32(source: Source) -> bytes:
    """Return the float file, made once for all that starts from it."""
    name = target_of(source, "float32")
    return converted(single(source), lambda *_: None, lambda: iter(()), name)


def target_of(source: Source, precision: Precision) -> str:
    """Return what messages call a conversion."""
    return f"{source.name} to tflite:{precision}"
