"""Static int8 of TFLite with ranges of our own: TensorFlow's quantiser reads them from the file.

The converter's first half writes a float file whose tensors carry the least and greatest value of
the calibration; its second half takes them from there. Between the two they can be any.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import tflite_converter
from kedge_convert.export.exported import PLAIN, Scheme
from kedge_convert.export.flatbuffer import pack, unpack
from kedge_convert.export.tflite_converter import Samples, converted, single, target_of
from kedge_convert.prepare.preparation import Grids
from kedge_convert.quantise.ranges import Ranges, See, StaticOperator
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.errors import one_line
from kedge_runtime.output import quiet


def floats(source: Source) -> bytes:
    """Return the float file with (as yet meaningless) ranges in its tensors."""
    shape = (1, *source.model.inputs[0].shape[1:])
    return converted(
        single(source),
        _calibrate_only,
        lambda: iter([[np.zeros(shape, np.float32)]]),
        target_of(source, "int8"),
    )


def _calibrate_only(tf: Any, converter: Any, samples: Samples) -> None:
    tflite_converter.stock(PLAIN, tf, converter, samples)
    converter._experimental_calibrate_only = True


def observe(content: bytes, pictures: Iterable[NDArray[np.float32]], see: See) -> None:
    """Call `see` with the name and value of every activation, picture by picture."""
    names = {i: _name(tensor) for i, tensor in enumerate(_tensors(content)) if _ranged(tensor)}
    litert = require("ai_edge_litert.interpreter")
    kernels = litert.OpResolverType
    # XNNPACK computes no output that nothing reads, as a SPLIT has: the others do.
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
    for picture in pictures:
        interpreter.set_tensor(start, picture)
        interpreter.invoke()
        for index, name in names.items():
            see(name, interpreter.get_tensor(index))


def quantise(
    content: bytes,
    ranges: Ranges,
    kept: frozenset[str] = frozenset(),
    scheme: Scheme = PLAIN,
) -> bytes:
    """Return the int8 file; operators whose output's name is in `kept` stay float.

    Its ends are those of the scheme, but its output is float32 if the last operator is kept.
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
                output_data_type=getattr(tf, "float32" if last in kept else scheme.output),
                denylisted_nodes=set(kept),
                disable_per_channel_for_dense_layers=not scheme.per_channel_dense,
            )
    # MLIR raises RuntimeError and others.
    except Exception as error:
        raise ConversionError(f"TensorFlow can't quantise the file: {one_line(error)}") from error
    return result


def grids(scheme: Scheme) -> Grids:
    """Return where prepared weights lie."""
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
    """Whether an operator has an output that no operator reads and the file doesn't give."""
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
