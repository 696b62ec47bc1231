"""Keras to ONNX in each precision; an open batch on request.

float16 and int8 are made of the float file, int8 through onnxruntime's quantiser.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from kedge_convert.export import onnx_routes, onnx_static, structure, tflite_converter
from kedge_convert.export.exported import STOCK, Exported, ExportOptions, half
from kedge_convert.export.onnx_graph import INPUT, OUTPUT
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.errors import one_line
from kedge_runtime.output import quiet

KERNEL = 1  # its index among a node's inputs
HALVED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def halved(content: bytes) -> bytes:
    """Return a float model with its kernels in float16; inputs, outputs and sums stay float32."""
    onnx = require("onnx")
    model = onnx.load_from_string(content)
    graph = model.graph
    kernels = {node.input[KERNEL] for node in graph.node if _is_halved(node, onnx)}
    casts = [cast for each in graph.initializer if (cast := _halve(each, kernels, onnx))]
    widened = {cast.input[0]: cast.output[0] for cast in casts}
    for node in graph.node:
        if node.op_type in HALVED:
            node.input[:] = [widened.get(name, name) for name in node.input]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _is_halved(node: Any, onnx: Any) -> bool:
    """Whether its kernel is; a depthwise convolution's stays (`exported.half`)."""
    groups = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return node.op_type in HALVED and groups.get("group", 1) == 1


def _halve(initializer: Any, kernels: set[str], onnx: Any) -> Any:
    """Store an initialiser as float16; return the Cast that widens it, or None."""
    if initializer.name not in kernels or initializer.data_type != onnx.TensorProto.FLOAT:
        return None
    rounded = half(onnx.numpy_helper.to_array(initializer))
    if rounded is None:
        return None
    initializer.CopyFrom(onnx.numpy_helper.from_array(rounded, initializer.name))
    wide = f"{initializer.name}_float32"
    return onnx.helper.make_node(
        "Cast", [initializer.name], [wide], name=wide, to=onnx.TensorProto.FLOAT
    )


def stock(source: Source, options: ExportOptions) -> bytes:
    """Quantise statically, int8 activations by min and max.

    What is a tensor of the float TFLite program, too, has the range that was measured there.
    """
    floats = onnx_static.folded(onnx_routes.float32(source))
    tensors = onnx_static.sources(floats, onnx_routes.names(source))
    program = tflite_converter.ranges(source, options) if tensors else {}
    known = {name: program[tensor] for name, tensor in tensors.items()}
    own = onnx_static.minmax(floats, options.tensors(source), known)
    return onnx_static.quantise(floats, known | own, scheme=options.scheme)


def export(source: Source, precision: Precision, options: ExportOptions = STOCK) -> Exported:
    """Return the serialised ModelProto of `source`, its structure checked.

    Input `input`, output `logits`, batch 1. Raises ConversionError.
    """
    with quiet(), _logs_off():
        content = RECIPES[precision](source, options)
    if precision != "float32":  # which its route has checked
        structure.check("onnx", content, source)
    return Exported(content)


def describe(content: bytes, contract: Contract) -> Exported:
    """Return the file as it is: ONNX has no convention for a classifier's inputs and outputs."""
    return Exported(content)


def _plain(source: Source, options: ExportOptions) -> bytes:
    return onnx_routes.float32(source)


def _halved(source: Source, options: ExportOptions) -> bytes:
    return halved(onnx_routes.float32(source))


RECIPES: dict[Precision, Callable[[Source, ExportOptions], bytes]] = {
    "float32": _plain,
    "float16": _halved,
    "int8": stock,
}
PRECISIONS = tuple(RECIPES)


@contextlib.contextmanager
def _logs_off() -> Iterator[None]:
    """Silence the toolkits' loggers, which hold handlers of their own."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


BATCH = "batch"  # the symbolic size's name in the file
TRIED = 3  # images
# Of the largest logit: other sizes of batch are summed in another order.
BATCH_TOLERANCE = 1e-4


def opened(exported: Exported, source: Source) -> Exported:
    """Return the model of `source` with any number of images in and as many answers out.

    Raises ConversionError when its answers for a batch aren't those for its images one by one.
    """
    onnx = require("onnx")
    model = onnx.load_from_string(exported.content)
    graph = model.graph
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for initializer in graph.initializer:
        if initializer.name in shapes:
            _open_first(initializer, onnx.numpy_helper)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]
    content: bytes = model.SerializeToString(deterministic=True)
    if fault := _fault(content, source):
        raise ConversionError(f"{source.name}: no open batch for this network: {fault}")
    return replace(exported, content=content)


def _open_first(initializer: Any, numpy_helper: Any) -> None:
    """Have a Reshape find its first size, which the batch multiplies.

    That is -1, or where another size is -1 already, 0: the first of its input.
    """
    sizes = numpy_helper.to_array(initializer).copy()
    if sizes.size and (sizes[0] == 1 or -1 not in sizes):
        sizes[0] = 0 if -1 in sizes[1:] else -1
        initializer.CopyFrom(numpy_helper.from_array(sizes, initializer.name))


def _fault(content: bytes, source: Source) -> str:
    images = structure.probes(source, TRIED)
    try:
        session = require("onnxruntime").InferenceSession(content)
        single = [session.run([OUTPUT], {INPUT: image})[0] for image in images]
        (together,) = session.run([OUTPUT], {INPUT: np.concatenate(images)})
    # onnxruntime's errors have no base of their own.
    except Exception as error:
        return one_line(error)
    off = np.abs(together - np.concatenate(single)).max() / np.abs(together).max()
    return "" if off <= BATCH_TOLERANCE else f"its answers for a batch are off by {off:.2g}"
