"""TFLite's 16-bit activations with 8-bit weights: near float, on integer units.

Many operators have no 16-bit form. Layers that consist of others which have are written out; what
is left over stays float between a DEQUANTIZE and a QUANTIZE, and a note says so.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kedge_convert import lowering
from kedge_convert.errors import ConversionError
from kedge_convert.formats import flatbuffer
from kedge_convert.formats.exported import Exported
from kedge_convert.formats.tflite_converter import (
    Samples,
    batch_of_one,
    converted,
    samples,
    set_dense,
    target_of,
)
from kedge_convert.photos import Tick
from kedge_convert.scheme import Scheme
from kedge_convert.source import Source

BETWEEN = frozenset({"QUANTIZE", "DEQUANTIZE"})


def recipe(source: Source, calibration: Sequence[Path], tick: Tick, scheme: Scheme) -> Exported:
    """Return the file with int16 ends, or with float ones where the first operator needs them."""
    lowered = lowering.lower(source.model, lowering.INT16X8)
    model, pictures = batch_of_one(lowered.model), samples(source, calibration, tick)
    name = target_of(source, "int16x8")
    try:
        content = converted(model, partial(_settle, scheme, "int16"), pictures, name)
    except ConversionError:
        content = converted(model, partial(_settle, scheme, "float32"), pictures, name)
    return Exported(content, (*lowered.notes, *left_float(content)))


def _settle(scheme: Scheme, ends: str, tf: Any, converter: Any, pictures: Samples) -> None:
    sets = tf.lite.OpsSet
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = pictures
    converter.target_spec.supported_ops = [
        sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        sets.TFLITE_BUILTINS,  # float, for what the former lacks
    ]
    converter.inference_input_type = converter.inference_output_type = getattr(tf, ends)
    set_dense(scheme, converter)


def left_float(content: bytes) -> list[str]:
    """Return a note for each kind of operator that gives float."""
    model = flatbuffer.unpack(content)
    tensors = model.subgraphs[0].tensors
    float32 = flatbuffer.schema().TensorType.FLOAT32
    kinds = Counter(
        name
        for name, operator in flatbuffer.operators(model)
        if tensors[operator.outputs[0]].type == float32 and name not in BETWEEN
    )
    return [f"{kind} stays float ({count}x)" for kind, count in sorted(kinds.items())]
