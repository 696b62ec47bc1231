"""Settle TensorFlow's converter for each precision; store a float file's weights as float16."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kedge_convert.export import flatbuffer
from kedge_convert.export.exported import Exported, Scheme, half, once
from kedge_convert.images import Tick, tensors
from kedge_convert.load import fake_quant, input_stage
from kedge_convert.rewrite import lowering
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.artefact.contract import Precision
from kedge_runtime.errors import KedgeError, one_line
from kedge_runtime.output import quiet

Samples = Callable[[], Iterator[list[Any]]]
# Gets TensorFlow, its converter and the calibration pictures, and settles the converter's options.
Settings = Callable[[Any, Any, Samples], None]


def single(source: Source) -> Any:
    """Return the model with batch 1: an open batch adds shape arithmetic that delegates refuse."""
    return batch_of_one(lowering.lower(source.model, lowering.TFLITE).model)


def batch_of_one(model: Any) -> Any:
    """Return the model with its batch fixed."""
    return input_stage.behind(model, (1, *model.inputs[0].shape[1:]))


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


KERNEL = 1  # its place among an operator's inputs
HALVED = frozenset({"CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
DEQUANTIZE_VERSION = 3  # the first that takes float16 (lite/tools/versioning/op_version.cc)


def halved(content: bytes) -> bytes:
    """Return a float file with its kernels in float16; engines compute in float32."""
    model = flatbuffer.unpack(content)
    code, widened, added = _code(model), {}, []
    for name, operator in flatbuffer.operators(model):
        if name not in HALVED:
            continue
        index = int(operator.inputs[KERNEL])
        if index not in widened and (wide := _halve(model, index)) is not None:
            widened[index] = wide
            added.append(_dequantize(code, index, wide))
        operator.inputs = [widened.get(each, each) for each in operator.inputs]
    model.subgraphs[0].operators[:0] = added
    return flatbuffer.pack(model)


def _halve(model: Any, index: int) -> int | None:
    """Store a constant as float16; return the index of a new tensor for its float32 form."""
    tensors = model.subgraphs[0].tensors
    tensor = tensors[index]
    kernel = flatbuffer.constant(model, tensor)
    rounded = None if kernel is None else half(kernel)
    if rounded is None:
        return None
    schema = flatbuffer.schema()
    wide = schema.TensorT()
    wide.shape, wide.type, wide.buffer = tensor.shape, tensor.type, 0
    wide.name = tensor.name + b"_float32"
    buffer = schema.BufferT()
    buffer.data = rounded.reshape(-1).view("uint8")
    tensor.buffer, tensor.type = len(model.buffers), schema.TensorType.FLOAT16
    model.buffers.append(buffer)
    tensors.append(wide)
    return len(tensors) - 1


def _dequantize(code: int, index: int, wide: int) -> Any:
    operator = flatbuffer.schema().OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [index], [wide]
    return operator


def _code(model: Any) -> int:
    """Return the index of a new operator code for DEQUANTIZE."""
    schema = flatbuffer.schema()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = DEQUANTIZE_VERSION
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


BETWEEN = frozenset({"QUANTIZE", "DEQUANTIZE"})


def int16x8_recipe(
    source: Source, calibration: Sequence[Path], tick: Tick, scheme: Scheme
) -> Exported:
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


def int8_recipe(
    source: Source, calibration: Sequence[Path], tick: Tick, scheme: Scheme
) -> Exported:
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
