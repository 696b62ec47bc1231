"""Run TensorFlow's converter with the settings of each precision; halve a float file's weights."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from kedge_convert.export import flatbuffer, placeholders, sixteen_bits, tflite_static
from kedge_convert.export.exported import Exported, ExportOptions, Ranges, Scheme, half
from kedge_convert.load import fake_quant, input_stage
from kedge_convert.memory import StoredBytes
from kedge_convert.rewrite import lowering
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.artefact.kinds import DType, Precision
from kedge_runtime.errors import one_line
from kedge_runtime.output import quiet


@dataclass(frozen=True)
class ConverterSettings:
    """Options of TensorFlow's converter; the defaults are the converter's own.

    `optimise`: quantise the weights. `input`, `output`: I/O dtypes. `per_channel_dense`: as of
    Scheme.
    """

    optimise: bool = False
    input: DType = "float32"
    output: DType = "float32"
    per_channel_dense: bool = True


INPUT, SIGNATURE = "input", "serving_default"
FLOAT = ConverterSettings()
DYNAMIC = ConverterSettings(optimise=True)


def by_training(scheme: Scheme) -> ConverterSettings:
    """Return the settings that quantise by the fake quantisation in the graph."""
    return ConverterSettings(
        optimise=True,
        input=scheme.input,
        output=scheme.output,
        per_channel_dense=scheme.per_channel_dense,
    )


def single(source: Source) -> Any:
    """Return the model with batch 1: an open batch adds shape arithmetic that delegates refuse."""
    return batch_of_one(lowering.lower(source.model, lowering.TFLITE).model)


def batch_of_one(model: Any) -> Any:
    """Return the model with its batch fixed."""
    return input_stage.behind(model, (1, *model.inputs[0].shape[1:]))


def converted(
    model: Any,
    settings: ConverterSettings,
    target: str,
) -> bytes:
    """Return the flatbuffer of a Keras model with batch 1.

    `target`: the name in messages. Raises ConversionError.
    """
    tf = require("tensorflow")
    try:
        with quiet():
            content = flatbuffer.pack(_signed(_file(tf, model, settings)))
    # MLIR raises RuntimeError and others.
    except Exception as error:
        raise ConversionError(
            f"{target}: TensorFlow can't convert it: {one_line(error)}"
        ) from error
    return content


# Weights beyond which memory matters more than time: VGG16 (138 million) takes 9.6 GB as one traced
# function, 5.2 GB as a SavedModel, and 3.8 GB with placeholders.
LARGE = 50_000_000


def _file(tf: Any, model: Any, settings: ConverterSettings) -> Any:
    """Return a model's file as a ModelT.

    Raises ValueError where TensorFlow's is no TFLite file, and what its converter does.
    """
    if settings == FLOAT and model.count_params() > LARGE:
        with suppress(Exception):  # the converter raises anything, and may yet take a SavedModel
            if (file := placeholders.convert(tf, model, LARGE)) is not None:
                return file
    converter = _converter(tf, model)
    _set(tf, converter, settings)
    content = converter.convert()
    if content[4:8] != flatbuffer.IDENTIFIER:
        raise ValueError(f"its file begins with {content[:8]!r}")
    return flatbuffer.unpack(content)


def _converter(tf: Any, model: Any) -> Any:
    """Return TensorFlow's converter of a model: by one traced function, or by a SavedModel."""
    if model.count_params() > LARGE:
        return tf.lite.TFLiteConverter.from_keras_model(model)
    return tf.lite.TFLiteConverter.from_concrete_functions([program(tf, model)])


def program(tf: Any, model: Any) -> Any:
    """Return the model as one function of TensorFlow.

    The converter freezes its weights itself. `from_keras_model` writes a SavedModel for that, which
    traces the model several times: four fifths of the time of a small conversion.
    """
    image = model.inputs[0]
    taken = tf.TensorSpec(image.shape, image.dtype, name=INPUT)
    return tf.function(partial(model, training=False)).get_concrete_function(taken)


def _signed(model: Any) -> Any:
    """Return a ModelT with the signature that a SavedModel would have: some programs ask for it."""
    schema = flatbuffer.schema()
    graph, signature = model.subgraphs[0], schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs = [_named(INPUT, graph.inputs[0])]
    signature.outputs = [_named(f"output_{i}", at) for i, at in enumerate(graph.outputs)]
    model.signatureDefs = [signature]
    return model


def _named(name: str, index: int) -> Any:
    tensor = flatbuffer.schema().TensorMapT()
    tensor.name, tensor.tensorIndex = name, index
    return tensor


def _set(tf: Any, converter: Any, settings: ConverterSettings) -> None:
    if settings.optimise:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = getattr(tf, settings.input)
    converter.inference_output_type = getattr(tf, settings.output)
    one = not settings.per_channel_dense
    converter._experimental_disable_per_channel_quantization_for_dense_layers = one


# By the Keras model, for as long as that lives.
_FLOATS: WeakKeyDictionary[Any, StoredBytes] = WeakKeyDictionary()


def float32(source: Source) -> bytes:
    """Return the float file, made once for all that starts from it."""
    if source.model in _FLOATS:
        return _FLOATS[source.model].read()
    content = converted(single(source), FLOAT, target_of(source, "float32"))
    _FLOATS[source.model] = StoredBytes(content)
    return content


_RANGES: WeakKeyDictionary[Any, tuple[tuple[Path, ...], Ranges]] = WeakKeyDictionary()


def ranges(source: Source, options: ExportOptions) -> Ranges:
    """Return the range of every activation of the float file, measured once for both formats."""
    images, found = _RANGES.get(source.model, ((), {}))
    if images != options.images or not found:
        found = tflite_static.minmax(float32(source), options.tensors(source))
        remember(source, options.images, found)
    return found


def remember(source: Source, images: tuple[Path, ...], found: Ranges) -> None:
    """Keep ranges that were measured otherwise."""
    _RANGES[source.model] = images, found


def target_of(source: Source, precision: Precision) -> str:
    """Return the name of a conversion in messages."""
    return f"{source.name} to tflite:{precision}"


def dynamic(source: Source, options: ExportOptions) -> Exported:
    """Return the file with int8 weights and float activations."""
    return Exported(converted(single(source), DYNAMIC, target_of(source, "dynamic")))


KERNEL = 1  # its index among an operator's inputs
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
    """Store a constant as float16; return the index of a new tensor for its float32 values."""
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


def int16x8(source: Source, options: ExportOptions) -> Exported:
    """Return the file with int16 I/O, or with float I/O where the first operator needs it."""
    lowered = lowering.lower(source.model, lowering.INT16X8)
    if lowered.notes:
        floats = converted(batch_of_one(lowered.model), FLOAT, target_of(source, "int16x8"))
        found = tflite_static.minmax(floats, options.tensors(source))
    else:
        floats, found = float32(source), ranges(source, options)
    try:
        content = sixteen_bits.quantise_16(floats, found, "int16")
    except ConversionError:
        content = sixteen_bits.quantise_16(floats, found, "float32")
    return Exported(content, (*lowered.notes, *left_float(content)))


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


def int8(source: Source, options: ExportOptions) -> Exported:
    """Quantise by the ranges that the model was trained with, or else by calibration images."""
    trained, notes = fake_quant.trained(source.model), tuple[str, ...]()
    target = target_of(source, "int8")
    if trained is not None:
        try:
            return Exported(_by_ranges(trained, options.scheme, target))
        except ConversionError as error:
            notes = (f"ranges of training not used, calibrated instead: {one_line(error)}",)
    floats = float32(source)
    found = ranges(source, options)
    return Exported(tflite_static.quantise(floats, found, scheme=options.scheme), notes)


def _by_ranges(trained: Any, scheme: Scheme, target: str) -> bytes:
    """Return the file by the ranges in a model. Raises ConversionError where some are missing."""
    content = converted(batch_of_one(trained), by_training(scheme), target)
    if floats := left_float(content):
        raise ConversionError(f"{target}: some ranges are missing, {', '.join(floats)}")
    return content
