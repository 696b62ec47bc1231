"""Check an exported file: its structure first, then one run."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export import flatbuffer
from kedge_convert.export.onnx_graph import INPUT, LARGE, OUTPUT
from kedge_convert.prepare.graph import Graph, trace
from kedge_convert.source import Source
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import KedgeError, one_line
from kedge_runtime.image.preprocessing import Preprocessor, dequantise
from kedge_runtime.modelfile.network import read_network
from kedge_runtime.modelfile.report import precision_of
from kedge_runtime.output import quiet

Shape = tuple[int | None, ...]

# Left behind when a converter meant to freeze variables and did not.
VARIABLES = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"})
STANDARD = frozenset({"", "ai.onnx"})


@dataclass(frozen=True)
class Skeleton:
    """A network without its numbers. Shapes have None for what isn't fixed.

    `foreign`: operators that standard engines lack. `numbers`: how many constants hold together.
    """

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    operators: tuple[str, ...]
    foreign: tuple[str, ...]
    numbers: int
    finite: bool


def _tflite(content: bytes) -> Skeleton:
    model = flatbuffer.unpack(content)
    if content[4:8] != flatbuffer.IDENTIFIER or len(model.subgraphs) != 1:
        raise ValueError("no TFLite file of one graph")
    graph = model.subgraphs[0]
    named = [name for name, _ in flatbuffer.operators(model)]
    constants = [each for each in graph.tensors if not _is_empty(model.buffers[each.buffer].data)]
    return Skeleton(
        inputs=_tflite_shapes(graph, graph.inputs),
        outputs=_tflite_shapes(graph, graph.outputs),
        operators=tuple(named),
        foreign=tuple(name for name in named if name.startswith("CUSTOM") or name in VARIABLES),
        numbers=sum(math.prod(flatbuffer.shape(each)) for each in constants),
        finite=all(_is_finite(_tflite_floats(model, each)) for each in constants),
    )


def _is_empty(data: Any) -> bool:
    return data is None or len(data) == 0


def _tflite_shapes(graph: Any, indices: Any) -> dict[str, Shape]:
    tensors = [graph.tensors[i] for i in indices]
    return {each.name.decode(): _tflite_shape(each) for each in tensors}


def _tflite_shape(tensor: Any) -> Shape:
    # The signature, where there is one, has -1 for what may change.
    signature = tensor.shapeSignature
    sizes = flatbuffer.shape(tensor) if _is_empty(signature) else signature
    return tuple(None if size < 0 else int(size) for size in sizes)


def _tflite_floats(model: Any, tensor: Any) -> NDArray[Any]:
    kinds = flatbuffer.schema().TensorType
    dtype = {kinds.FLOAT32: "<f4", kinds.FLOAT16: "<f2"}.get(tensor.type)
    return np.asarray(model.buffers[tensor.buffer].data).view(dtype) if dtype else np.zeros(0)


def _onnx(content: bytes) -> Skeleton:
    onnx = require("onnx")
    model = onnx.load_from_string(content)
    graph = model.graph
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in graph.initializer):
        raise ValueError("its weights lie in another file")
    skeleton = Skeleton(
        inputs={each.name: _onnx_shape(each) for each in graph.input},
        outputs={each.name: _onnx_shape(each) for each in graph.output},
        operators=tuple(each.op_type for each in graph.node),
        foreign=tuple(
            f"{each.domain}.{each.op_type}" for each in graph.node if each.domain not in STANDARD
        ),
        numbers=sum(math.prod(each.dims) for each in graph.initializer),
        finite=all(_is_finite(_onnx_floats(onnx, each)) for each in graph.initializer),
    )
    _hide_numbers(onnx, graph)
    onnx.checker.check_model(model, full_check=True)
    return skeleton


def _hide_numbers(onnx: Any, graph: Any) -> None:
    """Make inputs of large constants, in place: the checker copies several times what it gets."""
    large = [each for each in graph.initializer if math.prod(each.dims) >= LARGE]
    names = {each.name for each in large}
    small = [each for each in graph.initializer if each.name not in names]
    for each in large:
        value = onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        graph.input.append(value)
    del graph.initializer[:]
    graph.initializer.extend(small)


def _onnx_shape(value: Any) -> Shape:
    sizes = value.type.tensor_type.shape.dim
    return tuple(each.dim_value if each.HasField("dim_value") else None for each in sizes)


def _onnx_floats(onnx: Any, tensor: Any) -> NDArray[Any]:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return onnx.numpy_helper.to_array(tensor) if tensor.data_type in floats else np.zeros(0)


def _is_finite(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all())


READERS: dict[str, Callable[[bytes], Skeleton]] = {"tflite": _tflite, "onnx": _onnx}
"""Format -> the reader of a file's bytes; it raises whatever it breaks on."""


# Of the numbers in the model's kernels, how many a file must hold at least: a kernel of zeros or a
# branch without effect may go, but not more.
LEAST_SHARE = 0.9

# Precisions that a file may have instead: converters leave tiny layers float, and layers without
# integer kernels.
ALSO: dict[Precision, set[Precision]] = {
    "dynamic": {"dynamic", "mixed", "float32"},
    "int8": {"int8", "mixed"},
    "int16x8": {"int16x8", "int8", "mixed"},
    "mixed": {"int8", "mixed"},
}

NAMES = {"onnx": [INPUT, OUTPUT]}
"""Names of input and output, where they are promised."""


def check(format: str, content: bytes, source: Source) -> None:
    """Raise ConversionError when the exported file of `source` is no sound network.

    `format`: `tflite` or `onnx`. The file may be in any precision. Its answers must be finite; how
    near they are to the float model's is for parity.py.
    """
    try:
        skeleton = READERS[format](content)
    # A file that isn't one breaks its reader anywhere.
    except Exception as error:
        raise _fault(format, source, f"can't be read: {one_line(error)}") from error
    for find in FAULTS:
        if fault := find(skeleton, source):
            raise _fault(format, source, fault)
    names = [*skeleton.inputs, *skeleton.outputs]
    if names != NAMES.get(format, names):
        raise _fault(format, source, f"names its input and output {names}, not {NAMES[format]}")
    if fault := _run(format, content, source):
        raise _fault(format, source, fault)


def check_precision(content: ModelContent, precision: Precision, name: str) -> None:
    """Raise ConversionError when a file's tensors aren't of the precision that it is to be called.

    A toolkit that could not quantise may give the float model, which answers all too well.
    """
    actual = precision_of(read_network(content))
    if actual not in ALSO.get(precision, {precision}):
        raise ConversionError(
            f"{name}: the .{content.format} file has {actual} throughout, not {precision}"
        )


def probes(source: Source, count: int) -> list[NDArray[np.float32]]:
    """Return seeded noise as the model would get it from images: float32 [1, h, w, 3] each."""
    plan = Preprocessor(source.input)
    return [plan.look_up(noise) for noise in _noise(source, count)]


def _noise(source: Source, count: int) -> NDArray[np.uint8]:
    size = (source.input.geometry.height, source.input.geometry.width)
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def _fault(format: str, source: Source, fault: str) -> ConversionError:
    return ConversionError(f"{source.name}: the {format} file {fault}")


def _empty(skeleton: Skeleton, source: Source) -> str:
    return "" if skeleton.operators else "has no operators"


def _foreign(skeleton: Skeleton, source: Source) -> str:
    names = ", ".join(sorted(set(skeleton.foreign)))
    return f"needs operators that engines lack: {names}" if names else ""


def _inputs(skeleton: Skeleton, source: Source) -> str:
    return _shape_fault("input", skeleton.inputs, tuple(source.model.inputs[0].shape[1:]))


def _outputs(skeleton: Skeleton, source: Source) -> str:
    return _shape_fault("output", skeleton.outputs, tuple(source.model.outputs[0].shape[1:]))


def _shape_fault(kind: str, found: dict[str, Shape], wanted: tuple[int, ...]) -> str:
    if len(found) != 1:
        return f"has {len(found)} {kind}s, not one: {', '.join(found) or 'none'}"
    ((name, shape),) = found.items()
    if shape[1:] != wanted or shape[0] not in (1, None):
        return f"has the {kind} {name} of {shape}, not {(1, *wanted)}"
    return ""


def _weights(skeleton: Skeleton, source: Source) -> str:
    model = source.model
    if skeleton.numbers >= LEAST_SHARE * _count(model.weights):
        return ""
    # Before a file is called wrong: converters keep neither what has no part in the answer, such
    # as a branch of a nested model, nor equal constants twice.
    needed = _count(_distinct(_needed(trace(model))))
    if skeleton.numbers >= LEAST_SHARE * needed:
        return ""
    return f"holds {skeleton.numbers} numbers, the model's kernels have {needed}: weights are lost"


def _count(weights: Iterable[Any]) -> int:
    """Return how many numbers kernels hold, those of a shared one once."""
    kernels = {id(each): each for each in weights if len(each.shape) > 1}
    return sum(math.prod(each.shape) for each in kernels.values())


def _needed(graph: Graph) -> Iterator[Any]:
    """Yield the weights of the layers that have a part in the output."""
    wanted = {graph.output}
    for node in reversed(graph.nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            yield from getattr(node.layer, "weights", ())


def _distinct(weights: Iterable[Any]) -> list[Any]:
    """Return one of each set of weights with equal numbers."""
    values = ((each, np.asarray(each)) for each in weights)
    found = {(value.shape, sha256(value.tobytes()).digest()): each for each, value in values}
    return list(found.values())


def _finite(skeleton: Skeleton, source: Source) -> str:
    return "" if skeleton.finite else "holds weights that are not finite (NaN or infinite)"


FAULTS: tuple[Callable[[Skeleton, Source], str], ...] = (
    _empty,
    _foreign,
    _inputs,
    _outputs,
    _weights,
    _finite,
)


def _run(format: str, content: bytes, source: Source) -> str:
    """Return what is wrong when the runtime's own engine runs it, or an empty string."""
    try:
        with quiet():
            engine = open_engine(ModelContent(Path(f"exported.{format}"), format, content))
            plan = Preprocessor(replace(source.input, tensor=engine.input))
            raw = engine.run(plan.look_up(_noise(source, 1)[0]))
    except KedgeError as error:
        return f"doesn't run: {error}"
    answers = dequantise(raw, engine.output)
    return "" if np.isfinite(answers).all() else "answers with numbers that are not finite"
