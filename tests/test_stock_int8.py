"""Stock integers are those of TensorFlow's own converter, though its calibrator never runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import families
from kedge_convert.export import flatbuffer, tflite
from kedge_convert.export.exported import ExportOptions
from kedge_convert.export.tflite_converter import single
from kedge_convert.rewrite import lowering
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.output import quiet

# What an operator may write over its first input (kTfLiteInplaceOpInput0Shared of LiteRT's
# kernels): TensorFlow's calibrator then counts the sum among the values of the summand.
IN_PLACE = frozenset({"ADD", "SUB", "MUL", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"})

SETS: dict[Precision, tuple[str, ...]] = {
    "int8": ("TFLITE_BUILTINS_INT8",),
    "int16x8": (
        "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
        "TFLITE_BUILTINS",
    ),
}


def by_tensorflow(source: Source, options: ExportOptions, precision: Precision) -> bytes:
    """Return the file as TensorFlow's documentation makes it."""
    tf = require("tensorflow")
    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(single(source))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([each] for each in options.tensors(source))
        sets = [getattr(tf.lite.OpsSet, name) for name in SETS[precision]]
        converter.target_spec.supported_ops = sets
        ends = tf.int8 if precision == "int8" else tf.int16
        converter.inference_input_type = converter.inference_output_type = ends
        content: bytes = converter.convert()
    return content


def steps(model: Any) -> dict[tuple[int, str, int], tuple[float, int]]:
    """Return scale and zero point of each operator's activations: by place, name and position."""
    found = {}
    for place, (name, operator) in enumerate(flatbuffer.operators(model)):
        for position, index in enumerate((*operator.inputs, *operator.outputs)):
            tensor = model.subgraphs[0].tensors[index]
            one = tensor.quantization
            if one is not None and one.scale is not None and len(one.scale) == 1:
                found[place, name, position] = float(one.scale[0]), int(one.zeroPoint[0])
    return found


def overwritten(model: Any) -> set[int]:
    """Return the tensors that an operator in place may write over."""
    return {
        int(index)
        for name, operator in flatbuffer.operators(model)
        if name in IN_PLACE
        for index in operator.inputs
    }


@pytest.mark.parametrize("precision", SETS)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_stock_integers_are_the_converters(
    family: str, precision: Precision, pictures: Path
) -> None:
    source, options = families.source(family), ExportOptions(tuple(sorted(pictures.iterdir())[:20]))
    if precision == "int16x8":  # the converter gets the operators that kedge writes
        lowered = lowering.lower(source.model, lowering.INT16X8).model
        source = replace(source, model=lowered)
    compare(source, options, precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", SETS)
@pytest.mark.parametrize("name", ["mobilenet_0.25_224", "efficientnet_lite0_224"])
def test_stock_integers_are_the_converters_on_a_real_model(
    name: str, precision: Precision, shared: Path
) -> None:
    model = require("keras").models.load_model(shared / f"data/models/{name}.keras", compile=False)
    photos = tuple(sorted((shared / "data/images").iterdir())[:20])
    taken = replace(families.SPEC, geometry=Geometry(*model.inputs[0].shape[1:3]))
    compare(replace(families.source_of(model), input=taken), ExportOptions(photos), precision)


def compare(source: Source, options: ExportOptions, precision: Precision) -> None:
    """Assert equal operators, equal weights, and equal ranges but for what is overwritten."""
    ours, theirs = (
        flatbuffer.unpack(content)
        for content in (
            tflite.export(source, precision, options).content,
            by_tensorflow(source, options, precision),
        )
    )
    assert [n for n, _ in flatbuffer.operators(ours)] == [
        n for n, _ in flatbuffer.operators(theirs)
    ]
    found, expected, excused = steps(ours), steps(theirs), overwritten(ours)
    assert found.keys() == expected.keys()
    operators = flatbuffer.operators(ours)
    for (place, name, position), (scale, zero) in found.items():
        operator = operators[place][1]
        if int([*operator.inputs, *operator.outputs][position]) in excused:
            continue
        wanted = expected[place, name, position]
        # XNNPACK and the calibrator's kernels add in another order.
        assert scale == pytest.approx(wanted[0], rel=1e-3), (place, name, position)
        assert abs(zero - wanted[1]) <= 1, (place, name, position)
