"""TFLite's static int8."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kedge_convert.errors import ConversionError
from kedge_convert.formats.exported import Exported
from kedge_convert.formats.tflite_converter import (
    Samples,
    batch_of_one,
    converted,
    samples,
    set_dense,
    single,
    target_of,
)
from kedge_convert.formats.tflite_int16x8 import left_float
from kedge_convert.photos import Tick
from kedge_convert.scheme import Scheme
from kedge_convert.source import Source
from kedge_convert.sources import fake_quant
from kedge_runtime.errors import one_line


def recipe(source: Source, calibration: Sequence[Path], tick: Tick, scheme: Scheme) -> Exported:
    """Quantise by the ranges that the model was trained with, or else by calibration pictures."""
    trained, notes = fake_quant.trained(source.model), tuple[str, ...]()
    name = target_of(source, "int8")
    if trained is not None:
        try:
            return Exported(_by_ranges(trained, scheme, name))
        except ConversionError as error:
            notes = (f"ranges of training not used, calibrated instead: {one_line(error)}",)
    pictures = samples(source, calibration, tick)
    return Exported(converted(single(source), partial(stock, scheme), pictures, name), notes)


def _by_ranges(trained: Any, scheme: Scheme, name: str) -> bytes:
    """Return the file by the ranges in a model. Raises ConversionError where some are missing."""
    settings = partial(_by_training, scheme)
    content = converted(batch_of_one(trained), settings, lambda: iter(()), name)
    if floats := left_float(content):
        raise ConversionError(f"{name}: they don't cover all of it, {', '.join(floats)}")
    return content


def stock(scheme: Scheme, tf: Any, converter: Any, pictures: Samples) -> None:
    """Have TensorFlow's converter quantise: every tensor int8, its range by min and max."""
    converter.representative_dataset = pictures
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    _by_training(scheme, tf, converter, pictures)


def _by_training(scheme: Scheme, tf: Any, converter: Any, pictures: Samples) -> None:
    """Have TensorFlow's converter quantise by the fake quantisation in the graph."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = getattr(tf, scheme.input)
    converter.inference_output_type = getattr(tf, scheme.output)
    set_dense(scheme, converter)
