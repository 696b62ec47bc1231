"""Keras to TFLite through TensorFlow's converter."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kedge_convert.export import structure, tflite_converter
from kedge_convert.export.exported import PLAIN, Exported, Recipe, Scheme
from kedge_convert.export.tflite_converter import (
    Samples,
    converted,
    float32,
    samples,
    single,
    target_of,
)
from kedge_convert.export.tflite_metadata import describe
from kedge_convert.images import Tick
from kedge_convert.source import Source
from kedge_runtime.artefact.contract import Precision

__all__ = ["RECIPES", "describe", "export", "single"]

# Gets TensorFlow, its converter and the calibration pictures behind the scheme.
Settings = Callable[[Scheme, Any, Any, Samples], None]


def export(
    source: Source,
    precision: Precision,
    calibration: Sequence[Path],
    tick: Tick,
    scheme: Scheme = PLAIN,
) -> Exported:
    """Return the flatbuffer of `source` in `precision`, its structure checked.

    Batch 1; integers in and out for int16x8 and, as `scheme` says, for int8. Raises
    ConversionError.
    """
    exported = RECIPES[precision](source, calibration, tick, scheme)
    structure.check("tflite", exported.content, source)
    return exported


def _float32(source: Source, calibration: Sequence[Path], tick: Tick, scheme: Scheme) -> Exported:
    return Exported(float32(source))


def _float16(source: Source, calibration: Sequence[Path], tick: Tick, scheme: Scheme) -> Exported:
    return Exported(tflite_converter.halved(float32(source)))


def _with(precision: Precision, settings: Settings) -> Recipe:
    """Return the recipe that is one run of the converter with these settings."""

    def recipe(source: Source, calibration: Sequence[Path], tick: Tick, scheme: Scheme) -> Exported:
        pictures = samples(source, calibration, tick)
        name = target_of(source, precision)
        return Exported(converted(single(source), partial(settings, scheme), pictures, name))

    return recipe


def _dynamic(scheme: Scheme, tf: Any, converter: Any, pictures: Samples) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


RECIPES: dict[Precision, Recipe] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic": _with("dynamic", _dynamic),
    "int8": tflite_converter.int8_recipe,
    "int16x8": tflite_converter.int16x8_recipe,
}
