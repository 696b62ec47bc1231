"""Keras to TFLite through TensorFlow's converter."""

from collections.abc import Callable

from kedge_convert.export import structure, tflite_converter
from kedge_convert.export.exported import STOCK, Exported, ExportOptions
from kedge_convert.export.tflite_converter import single
from kedge_convert.export.tflite_metadata import describe
from kedge_convert.source import Source
from kedge_runtime.artefact.contract import Precision

__all__ = ["PRECISIONS", "describe", "export", "single"]

# Precision -> its file, from the float file. All float targets share one conversion.
FROM_FLOAT: dict[Precision, Callable[[bytes], bytes]] = {
    "float32": bytes,
    "float16": tflite_converter.halved,
}
# Precision -> a recipe of its own: a run of the converter, or two where the first may fail.
RECIPES: dict[Precision, Callable[[Source, ExportOptions], Exported]] = {
    "dynamic": tflite_converter.dynamic,
    "int8": tflite_converter.int8,
    "int16x8": tflite_converter.int16x8,
}
PRECISIONS = (*FROM_FLOAT, *RECIPES)


def export(source: Source, precision: Precision, options: ExportOptions = STOCK) -> Exported:
    """Return the flatbuffer of `source` in `precision`, its structure checked.

    Batch 1; integers in and out for int16x8 and, as the scheme says, for int8. Raises
    ConversionError.
    """
    if precision in FROM_FLOAT:
        exported = Exported(FROM_FLOAT[precision](tflite_converter.float32(source)))
    else:
        exported = RECIPES[precision](source, options)
    structure.check("tflite", exported.content, source)
    return exported
