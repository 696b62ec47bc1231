"""TFLite with weights in float16: the float file, its kernels behind a DEQUANTIZE each.

TensorFlow's own recipe does the same to every constant, depthwise kernels and biases included.
"""

from typing import Any

from kedge_convert.formats import flatbuffer
from kedge_convert.formats.halves import half

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
