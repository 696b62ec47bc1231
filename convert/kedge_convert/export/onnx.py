"""Keras to ONNX by the most exact of several routes, in each precision; an open batch on request.

float16 and int8 are made of the float file, int8 through onnxruntime's quantiser.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from kedge_convert.export import structure
from kedge_convert.export.exported import STOCK, Exported, ExportOptions, half
from kedge_convert.export.onnx_graph import INPUT, OUTPUT, canonical
from kedge_convert.export.tf2onnx import ROUTES, Route
from kedge_convert.images import tensors
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.artefact.contract import Contract, Precision
from kedge_runtime.errors import one_line
from kedge_runtime.files import temporary_folder
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


POOL = "GlobalAveragePool"
IMAGE = 4  # axes


def reduced(model: Any) -> Any:
    """Return the ModelProto with such means as ReduceMean; changes it in place."""
    pools = [node for node in model.graph.node if node.op_type == POOL]
    if not pools:
        return model
    onnx = require("onnx")
    graph = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        each.name: len(each.type.tensor_type.shape.dim)
        for each in (*graph.value_info, *graph.input)
        if each.type.tensor_type.HasField("shape")
    }
    for node in pools:
        rank = ranks.get(node.input[0], IMAGE)
        if rank != IMAGE:
            node.op_type = "ReduceMean"
            node.attribute.append(onnx.helper.make_attribute("axes", list(range(2, rank))))
            node.attribute.append(onnx.helper.make_attribute("keepdims", 1))
    return model


TINY = np.float32(np.finfo(np.float32).tiny)


def guard(model: Any) -> Any:
    """Return the ModelProto with zeros before a MaxPool written as TINY; changes it in place."""
    pooled = {node.input[0] for node in model.graph.node if node.op_type == "MaxPool"}
    constants = {each.name: each for each in model.graph.initializer}
    pads = [node for node in model.graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    for pad in filter(lambda pad: _of_zeros(pad, constants), pads):
        name = f"{pad.output[0]}/value"
        value = require("onnx").numpy_helper.from_array(np.array(TINY), name)
        model.graph.initializer.append(value)
        pad.input[:] = [*pad.input[:2], name, *pad.input[3:]]
    return model


def _of_zeros(pad: Any, constants: dict[str, Any]) -> bool:
    """Whether it pads with a constant that is zero, as it does when nothing is said."""
    modes = [each.s for each in pad.attribute if each.name == "mode"]
    if modes and modes != [b"constant"]:
        return False
    if len(pad.input) < 3 or not pad.input[2]:
        return True
    held = constants.get(pad.input[2])
    return held is not None and not require("onnx").numpy_helper.to_array(held).any()


def stock(source: Source, floats: Path, options: ExportOptions) -> bytes:
    """Quantise statically: QDQ, int8 weights per channel, int8 activations by min and max."""
    quantization = require("onnxruntime.quantization")
    quantised = floats.with_suffix(".int8.onnx")
    quantization.quantize_static(
        str(folded(floats)),
        str(quantised),
        _reader(quantization, source, options),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=options.scheme.reduce_range,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QInt8,
    )
    return quantised.read_bytes()


def folded(floats: Path) -> Path:
    """Write a float model beside itself as onnxruntime wants it before it quantises."""
    shapes = require("onnxruntime.quantization.shape_inference")
    path = floats.with_suffix(".folded.onnx")
    shapes.quant_pre_process(str(floats), str(path), skip_symbolic_shape=True)
    return path


def _reader(quantization: Any, source: Source, options: ExportOptions) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._tensors = options.tensors(source)

        def get_next(self) -> dict[str, Any] | None:
            tensor = next(self._tensors, None)
            return None if tensor is None else {"input": tensor}

    return Reader()


# Of the largest logit: a graph that is wrong is off by far more. How exact the chosen one is, is
# for the parity check to say, on more images.
TOLERANCE = 1e-3
# Routes whose errors differ by less are equally exact: sums in another order differ by 1e-6.
EQUAL = 1e-5
PROBES = 4


def export(source: Source, precision: Precision, options: ExportOptions = STOCK) -> Exported:
    """Return the serialised ModelProto of `source`, its structure checked.

    Input `input`, output `logits`, batch 1. Raises ConversionError.
    """
    with quiet(), _logs_off(), temporary_folder() as folder:
        floats = folder / "float32.onnx"
        floats.write_bytes(float32(source))
        content = RECIPES[precision](source, floats, options)
    structure.check("onnx", content, source)
    return Exported(content)


def describe(content: bytes, contract: Contract) -> Exported:
    """Return the file as it is: ONNX has no convention for a classifier's inputs and outputs."""
    return Exported(content)


@dataclass(frozen=True)
class RoutedModel:
    """The model of one route. `error`: the largest of its logits, as a share of the largest."""

    nodes: int
    error: float
    content: bytes


# By the Keras model, for as long as that lives.
_FLOATS: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


def float32(source: Source) -> bytes:
    """Return the float model, made once for all that starts from it."""
    if source.model not in _FLOATS:
        _FLOATS[source.model] = _float32(source)
    return _FLOATS[source.model]


def _float32(source: Source) -> bytes:
    """Return the model of the best route.

    Of the routes whose model passes every check it is the most exact one; of those that are equally
    exact the one with the fewest nodes.
    """
    reasons: list[str] = []
    models: list[RoutedModel] = []
    with temporary_folder() as folder:
        for name, route in ROUTES.items():
            try:
                models.append(checked(route, source, folder))
            except OSError:  # a full disk is no fault of the route's
                raise
            # tf2onnx raises whatever its parts raise; another route may do, or all are named.
            except Exception as error:
                reasons.append(f"{name}: {one_line(error)}")
    if not models:
        raise ConversionError(f"{source.name}: no route to ONNX: {'; '.join(reasons)}")
    return best(models).content


def best(models: Sequence[RoutedModel]) -> RoutedModel:
    """Return the one with the fewest nodes of those within EQUAL of the most exact."""
    least = min(model.error for model in models)
    exact = [model for model in models if model.error <= least + EQUAL]
    return min(exact, key=attrgetter("nodes"))


def checked(route: Route, source: Source, folder: Path) -> RoutedModel:
    """Return the model of one route. Raises for a model that is wrong."""
    names: Any = require("tf2onnx.utils")
    names.INTERNAL_NAME = 1  # its optimisers go by names, which count all that went before
    model = canonical(reduced(guard(route(source, folder))))
    content: bytes = model.SerializeToString(deterministic=True)
    structure.check("onnx", content, source)
    error = _probe(content, source)
    # Written so that a NaN fails.
    if not error <= TOLERANCE:
        raise ConversionError(f"its logits are off by {error:.2g} of the largest")
    return RoutedModel(len(model.graph.node), error, content)


def _probe(content: bytes, source: Source) -> float:
    """Return the relative error of the logits on the source's images, or else on noise."""
    probes = list(tensors(source.images, source.input)) or structure.probes(source, PROBES)
    reference = source.logits(iter(probes))
    session = require("onnxruntime").InferenceSession(content)
    rows = [session.run([OUTPUT], {INPUT: probe})[0].reshape(1, -1) for probe in probes]
    answers = np.concatenate(rows)
    return float(np.abs(answers - reference).max() / max(np.abs(reference).max(), 1e-12))


def _plain(source: Source, floats: Path, options: ExportOptions) -> bytes:
    return floats.read_bytes()


def _halved(source: Source, floats: Path, options: ExportOptions) -> bytes:
    return halved(floats.read_bytes())


RECIPES: dict[Precision, Callable[[Source, Path, ExportOptions], bytes]] = {
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
