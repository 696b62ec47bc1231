"""Static int8 of TFLite with chosen ranges: TensorFlow's quantiser reads them from the file.

The converter's first half writes a float file; its tensors carry the least and greatest value of
the calibration. Its second half reads them from there. Between the two, kedge replaces them.
"""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export.exported import PLAIN, Scheme
from kedge_convert.export.flatbuffer import pack, unpack
from kedge_convert.export.tflite_converter import converted, single, stock, target_of
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise.ranges import Ranges, See, StaticOperator
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.errors import one_line
from kedge_runtime.output import quiet


def floats(source: Source) -> bytes:
    """Return the float file with (as yet meaningless) ranges in its tensors."""
    blank = np.zeros((1, *source.model.inputs[0].shape[1:]), np.float32)
    settings = replace(stock(), calibrate_only=True)
    return converted(single(source), settings, target_of(source, "int8"), lambda: [blank])


def observe(content: bytes, images: Iterable[NDArray[np.float32]], see: See) -> None:
    """Call `see` with the name and value of every activation, image by image."""
    names = {i: _name(tensor) for i, tensor in enumerate(_tensors(content)) if _ranged(tensor)}
    litert = require("ai_edge_litert.interpreter")
    kernels = litert.OpResolverType
    # XNNPACK leaves out outputs that nothing reads, as a SPLIT has: the others compute them.
    kind = kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES if _unread(content) else kernels.AUTO
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that kept tensors take memory
        interpreter = litert.Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=kind,
        )
        interpreter.allocate_tensors()
    start = interpreter.get_input_details()[0]["index"]
    for image in images:
        interpreter.set_tensor(start, image)
        interpreter.invoke()
        for index, name in names.items():
            see(name, interpreter.get_tensor(index))


def quantise(
    content: bytes,
    ranges: Ranges,
    float_operators: frozenset[str] = frozenset(),
    scheme: Scheme = PLAIN,
) -> bytes:
    """Return the int8 file; operators whose output's name is in `float_operators` stay float.

    Its I/O dtypes are the scheme's, but its output is float32 if the last operator stays float.
    """
    tf, convert = require("tensorflow"), require("tensorflow.lite.python.convert")
    model, last = unpack(content), operators(content)[-1].name
    for tensor in model.subgraphs[0].tensors:
        if _ranged(tensor):
            one = ranges[_name(tensor)]
            tensor.quantization.min, tensor.quantization.max = [one.low], [one.high]
    try:
        with quiet():
            result: bytes = convert.mlir_quantize(
                pack(model),
                input_data_type=getattr(tf, scheme.input),
                output_data_type=getattr(
                    tf, "float32" if last in float_operators else scheme.output
                ),
                denylisted_nodes=set(float_operators),
                disable_per_channel_for_dense_layers=not scheme.per_channel_dense,
            )
    # MLIR raises RuntimeError and others.
    except Exception as error:
        raise ConversionError(f"TensorFlow can't quantise the file: {one_line(error)}") from error
    return result


def grids(scheme: Scheme) -> Grids:
    """Return the grids of prepared weights."""
    return Grids(per_channel_dense=scheme.per_channel_dense)


def operators(content: bytes) -> list[StaticOperator]:
    """Return the operators of a float file in execution order; each is named by its output."""
    graph = unpack(content).subgraphs[0]
    names = {i: _name(tensor) for i, tensor in enumerate(graph.tensors) if _ranged(tensor)}
    return [
        StaticOperator(
            _name(graph.tensors[each.outputs[0]]),
            frozenset(names[i] for i in (*each.inputs, *each.outputs) if i in names),
        )
        for each in graph.operators
    ]


def _unread(content: bytes) -> bool:
    """Whether an operator has an output that neither an operator nor the file's user reads."""
    graph = unpack(content).subgraphs[0]
    read = {*graph.outputs, *(index for each in graph.operators for index in each.inputs)}
    return any(not read.issuperset(each.outputs) for each in graph.operators)


def _tensors(content: bytes) -> list[Any]:
    tensors: list[Any] = unpack(content).subgraphs[0].tensors
    return tensors


def _ranged(tensor: Any) -> bool:
    return tensor.quantization is not None and tensor.quantization.max is not None


def _name(tensor: Any) -> str:
    name: str = tensor.name.decode()
    return name
