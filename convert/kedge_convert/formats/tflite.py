"""Keras to TFLite through TensorFlow's converter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedge_convert import structure
from kedge_convert.formats import tflite_float16, tflite_int8, tflite_int16x8
from kedge_convert.formats.exported import Exported, Recipe
from kedge_convert.formats.tflite_converter import (
    Samples,
    Settings,
    converted,
    float32,
    samples,
    single,
    target_of,
)
from kedge_convert.photos import Tick
from kedge_convert.source import Source
from kedge_runtime.contract import Precision

__all__ = ["RECIPES", "export", "single"]


def export(
    source: Source, precision: Precision, calibration: Sequence[Path], tick: Tick
) -> Exported:
    """Return the flatbuffer of `source` in `precision`, its structure checked.

    Batch 1; integers in and out for int8 and int16x8. Raises ConversionError.
    """
    exported = RECIPES[precision](source, calibration, tick)
    structure.check("tflite", exported.content, source)
    return exported


def _float32(source: Source, calibration: Sequence[Path], tick: Tick) -> Exported:
    return Exported(float32(source))


def _float16(source: Source, calibration: Sequence[Path], tick: Tick) -> Exported:
    return Exported(tflite_float16.halved(float32(source)))


def _with(precision: Precision, settings: Settings) -> Recipe:
    """Return the recipe that is one run of the converter with these settings."""

    def recipe(source: Source, calibration: Sequence[Path], tick: Tick) -> Exported:
        pictures = samples(source, calibration, tick)
        name = target_of(source, precision)
        return Exported(converted(single(source), settings, pictures, name))

    return recipe


def _dynamic(tf: Any, converter: Any, pictures: Samples) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


RECIPES: dict[Precision, Recipe] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic": _with("dynamic", _dynamic),
    "int8": _with("int8", tflite_int8.stock),
    "int16x8": tflite_int16x8.recipe,
}
