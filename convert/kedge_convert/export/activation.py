"""Append an output activation to a TFLite file, for programs that compute none.

It is one operator behind the logits, in their dtype. So it takes every file, whatever quantised it,
and changes nothing before it.
"""

from typing import Any

import numpy as np

from kedge_convert.export import flatbuffer
from kedge_convert.toolkit import ConversionError
from kedge_runtime.artefact.kinds import Activation

# Activation -> its operator in schema.fbs, and that operator's options.
OPERATORS: dict[Activation, tuple[str, str]] = {
    "softmax": ("SOFTMAX", "SoftmaxOptions"),
    "sigmoid": ("LOGISTIC", ""),
}
NAME = "probabilities"
# The kernels take no other scale for probabilities: scale and zero point by dtype.
STEPS = {"INT8": (1 / 256, -128), "UINT8": (1 / 256, 0)}
VERSIONS = {"INT8": 2}  # of both operators; else 1


def append(content: bytes, activation: Activation) -> bytes:
    """Return the file with the activation behind its output, in the output's dtype.

    Raises ConversionError for a dtype in which the operators give no probabilities.
    """
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    (logits,) = map(int, graph.outputs)
    dtype = _dtype_name(graph.tensors[logits].type)
    if dtype != "FLOAT32" and dtype not in STEPS:
        raise ConversionError(
            f"no {activation} of {dtype.lower()}: allowed are float32, int8, uint8"
        )
    place = len(graph.tensors)
    graph.tensors.append(_probabilities(model, graph.tensors[logits], dtype))
    graph.operators.append(_operator(model, activation, dtype, logits, place))
    graph.outputs = np.array([place], np.int32)
    for signature in model.signatureDefs or ():
        for each in signature.outputs:
            each.tensorIndex = place
    return flatbuffer.pack(model)


def _dtype_name(number: int) -> str:
    kinds: dict[str, int] = vars(flatbuffer.schema().TensorType)
    return next(name for name, value in kinds.items() if value == number)


def _probabilities(model: Any, logits: Any, dtype: str) -> Any:
    """Return the new tensor, with an empty buffer of its own."""
    classes = flatbuffer.schema()
    model.buffers.append(classes.BufferT())
    tensor = classes.TensorT()
    tensor.shape, tensor.shapeSignature = logits.shape, logits.shapeSignature
    tensor.hasRank, tensor.type, tensor.name = logits.hasRank, logits.type, NAME.encode()
    tensor.buffer = len(model.buffers) - 1
    if dtype in STEPS:
        scale, zero = STEPS[dtype]
        tensor.quantization = classes.QuantizationParametersT()
        tensor.quantization.scale = np.array([scale], np.float32)
        tensor.quantization.zeroPoint = np.array([zero], np.int64)
    return tensor


def _operator(model: Any, activation: Activation, dtype: str, start: int, end: int) -> Any:
    classes = flatbuffer.schema()
    name, options = OPERATORS[activation]
    code = classes.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(classes.BuiltinOperator, name)
    code.version = VERSIONS.get(dtype, 1)
    model.operatorCodes.append(code)
    operator = classes.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array([start], np.int32), np.array([end], np.int32)
    if options:
        operator.builtinOptionsType = getattr(classes.BuiltinOptions, options)
        operator.builtinOptions = getattr(classes, f"{options}T")()
        operator.builtinOptions.beta = 1.0
    return operator
