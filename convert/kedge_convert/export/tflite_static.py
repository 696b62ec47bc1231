"""Static int8 of a float TFLite file: TensorFlow's quantiser takes the ranges from its tensors."""

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer
from kedge_convert.export.exported import PLAIN, Range, Ranges, Scheme, limits
from kedge_convert.spread import shared
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.engines.choice import cores
from kedge_runtime.engines.copies import copies
from kedge_runtime.errors import one_line
from kedge_runtime.output import quiet

Activation = NDArray[np.float32]


def activations(model: Any) -> dict[int, str]:
    """Return the name of every float tensor of a ModelT that an operator computes, or the input."""
    float32, constants = flatbuffer.schema().TensorType.FLOAT32, model.buffers
    return {
        index: tensor.name.decode()
        for index, tensor in enumerate(model.subgraphs[0].tensors)
        if tensor.type == float32 and _is_empty(constants[tensor.buffer].data)
    }


def _is_empty(data: Any) -> bool:
    return data is None or not len(data)


def observed(content: bytes, images: Iterable[Activation]) -> Iterator[tuple[str, Activation]]:
    """Yield the name and value of every activation of a float file, image by image."""
    model = flatbuffer.unpack(content)
    interpreter, names = _interpreter(content, model), activations(model)
    start = interpreter.get_input_details()[0]["index"]
    for image in images:
        interpreter.set_tensor(start, image)
        interpreter.invoke()
        for index, name in names.items():
            yield name, interpreter.get_tensor(index)


_OPENING = Lock()  # threads may observe, but filters of warnings are of the whole process


def _interpreter(content: bytes, model: Any) -> Any:
    litert = require("ai_edge_litert.interpreter")
    kernels = litert.OpResolverType
    # XNNPACK leaves out outputs that nothing reads, as a SPLIT has: the others compute them.
    kind = kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES if _unread(model) else kernels.AUTO
    with _OPENING, quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that kept tensors take memory
        interpreter = litert.Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=kind,
        )
        interpreter.allocate_tensors()
    return interpreter


def _unread(model: Any) -> bool:
    """Whether an operator has an output that neither an operator nor the file's user reads."""
    graph = model.subgraphs[0]
    read = {*graph.outputs, *(index for each in graph.operators for index in each.inputs)}
    return any(not read.issuperset(each.outputs) for each in graph.operators)


def minmax(content: bytes, images: Iterable[Activation]) -> Ranges:
    """Return the range of all values of every activation over the images, in a thread a core."""
    taken, count = shared(images), copies(len(content), cores())
    with ThreadPoolExecutor(count, thread_name_prefix="kedge-ranges") as threads:
        parts = threads.map(lambda _: limits(observed(content, taken())), range(count))
        return Range.of_parts(parts)


def quantise(
    content: bytes,
    ranges: Ranges,
    float_operators: frozenset[str] = frozenset(),
    scheme: Scheme = PLAIN,
) -> bytes:
    """Return the int8 file; operators whose output's name is in `float_operators` stay float.

    Its I/O dtypes are the scheme's, but its output is float32 if the last operator stays float.
    Raises ConversionError.
    """
    tf, convert = require("tensorflow"), require("tensorflow.lite.python.convert")
    model = ranged(content, ranges)
    graph = model.subgraphs[0]
    if scheme.input_span is not None:
        _set(graph.tensors[graph.inputs[0]], Range.over(*scheme.input_span))
    last = graph.tensors[graph.operators[-1].outputs[0]].name.decode()
    try:
        with quiet():
            result: bytes = convert.mlir_quantize(
                flatbuffer.pack(model),
                input_data_type=getattr(tf, scheme.input),
                output_data_type=getattr(
                    tf, "float32" if last in float_operators else scheme.output
                ),
                denylisted_nodes=set(float_operators),
                disable_per_channel=not scheme.per_channel,
                disable_per_channel_for_dense_layers=not scheme.per_channel_dense,
            )
    # MLIR raises RuntimeError and others.
    except Exception as error:
        raise ConversionError(f"TensorFlow can't quantise the file: {one_line(error)}") from error
    return result


def ranged(content: bytes, ranges: Ranges) -> Any:
    """Return the ModelT with the ranges in its tensors."""
    model = flatbuffer.unpack(content)
    for index, name in activations(model).items():
        _set(model.subgraphs[0].tensors[index], ranges[name])
    return model


def _set(tensor: Any, one: Range) -> None:
    tensor.quantization = tensor.quantization or flatbuffer.schema().QuantizationParametersT()
    tensor.quantization.min, tensor.quantization.max = [one.low], [one.high]
