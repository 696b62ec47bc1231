"""What preparation decided is what ships: the integers in the files are the prepared ones."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

import nets
from kedge_convert.export.exported import PLAIN, ExportOptions, Scheme
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation
from kedge_convert.quantise import observing
from kedge_convert.quantise.ranges import choose
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.worker.progress import Progress
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Output

onnx: Any = pytest.importorskip("onnx", reason="the converter needs keras-kedge[convert]")
pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow

NETS = (
    "mobile",
    "chain",
    "residual",
    "branches",
    "squeeze_excite",
    "sequential",
    "separable",
    "grouped",
    "transposed",
)
KERNEL_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
LEVELS = 127
CORAL = Scheme("uint8", "uint8", per_channel_dense=False)
X86 = Scheme(reduce_range=True)
REDUCED = 64


@dataclass(frozen=True)
class Kernel:
    """One int8 kernel with the output channels first, [out, ...], and each one's step, [out]."""

    integers: NDArray[np.int8]
    steps: NDArray[np.float32]


def ordered(kernel: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return a Keras kernel as [out, h * w * in]: what it is in every format, if in one order."""
    if kind == "depthwise":
        return kernel.transpose(2, 3, 0, 1).reshape(kernel.shape[2] * kernel.shape[3], -1)
    return kernel.reshape(-1, kernel.shape[-1]).T


def prepared_kernels(model: Any, form: str, scheme: Scheme = PLAIN) -> list[Kernel]:
    """Return the integers that preparation left in a model's weights."""
    levels = REDUCED if form == "onnx" and scheme.reduce_range else LEVELS
    found = []
    for node in preparation.plan(model).nodes:
        assert node.weights is not None or not any(w.ndim > 1 for w in node.layer.weights)
        if node.weights is None:
            continue
        rows = ordered(node.weights.kernel, node.weights.kind)
        peaks = np.abs(rows).max(axis=1)
        dense = node.weights.kind == "dense" and form == "tflite" and not scheme.per_channel_dense
        if dense or not scheme.per_channel:
            peaks = peaks.max(keepdims=True)
        steps = peaks / np.float32(levels)
        integers = np.rint(rows / steps[:, None])
        np.testing.assert_allclose(rows, integers * steps[:, None], rtol=1e-5)
        found.append(Kernel(integers.astype(np.int8), steps))
    return found


def tflite_kernels(content: bytes) -> Iterator[Kernel]:
    """Yield the second input of every convolution and dense layer."""
    # Without XNNPACK, which keeps kernels in a form of its own.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    details = {each["index"]: each for each in interpreter.get_tensor_details()}
    for operator in interpreter._get_ops_details():
        if operator["op_name"] in KERNEL_OPERATORS:
            index = int(operator["inputs"][1])
            parameters = details[index]["quantization_parameters"]
            values = interpreter.get_tensor(index)
            assert values.dtype == np.int8
            assert not parameters["zero_points"].any()
            axis = 3 if operator["op_name"] == "DEPTHWISE_CONV_2D" else 0
            if len(parameters["scales"]) > 1:
                assert parameters["quantized_dimension"] == axis
            rows = np.moveaxis(values, axis, 0)
            yield Kernel(rows.reshape(len(rows), -1), parameters["scales"])


def onnx_kernels(content: bytes) -> Iterator[Kernel]:
    """Yield the dequantised second input of every operator with a kernel, [out, h * w * in]."""
    graph = onnx.load_from_string(content).graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    origin = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        dequantise = origin[node.input[1]]
        values, steps, zeros = (constants[name] for name in dequantise.input)
        assert values.dtype == np.int8
        assert not zeros.any()
        # Outputs are first in a Conv and in a turned Gemm. One scale's axis says nothing.
        turned = [a.i for a in node.attribute if a.name == "transB"] == [1]
        axis = 0 if node.op_type == "Conv" or turned else 1
        if steps.size > 1:
            assert [a.i for a in dequantise.attribute if a.name == "axis"] == [axis]
        rows, steps = np.moveaxis(values, axis, 0), np.atleast_1d(steps)
        # [out, in, h, w], where Keras has h and w first.
        rows = rows.transpose(0, 2, 3, 1) if rows.ndim == 4 else rows
        yield Kernel(rows.reshape(len(rows), -1), steps)


KERNELS = {"tflite": tflite_kernels, "onnx": onnx_kernels}


def source_of(name: str) -> Source:
    spec = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))
    return Source(name, nets.make(name), spec, Output(), (), "")


def prepared(
    source: Source, photos: list[Path], form: str = "tflite", scheme: Scheme = PLAIN
) -> Source:
    values = np.concatenate(list(tensors(photos, source.input)))
    graph = preparation.plan(source.model)
    levelled = preparation.equalised(graph, values, per_channel=scheme.per_channel)
    rounding = preparation.Rounding(5, grids=STATIC[form].grids(scheme))
    return replace(source, model=preparation.round_weights(levelled, values, rounding).build())


def shipped(source: Source, form: str, photos: list[Path], scheme: Scheme = PLAIN) -> bytes:
    """Return the int8 file as `kedge convert` makes it of prepared weights."""
    static, floats = STATIC[form], STATIC[form].floats(source)
    with Progress(silent=True) as progress:
        histograms = observing.observed(
            Target(form, "int8"), source, floats, ImageSplit(tuple(photos), ()), progress
        )
    return static.quantise(floats, choose("minmax", histograms), scheme=scheme)


@pytest.mark.parametrize("name", NETS)
def test_the_files_hold_the_prepared_integers(name: str, pictures: Path, form: str) -> None:
    photos = sorted(pictures.iterdir())
    source = prepared(source_of(name), photos)
    content = shipped(source, form, photos)
    holds(content, form, prepared_kernels(source.model, form))


def holds(content: bytes, form: str, wanted: list[Kernel]) -> None:
    """Fail unless a file has the wanted kernels, integer by integer, and no others."""
    found = list(KERNELS[form](content))
    assert len(found) == len(wanted) >= 3
    for kernel in wanted:
        # Formats may order layers differently: a kernel's integers are its name.
        (same,) = (one for one in found if np.array_equal(one.integers, kernel.integers))
        np.testing.assert_allclose(same.steps, kernel.steps, rtol=1e-6)


@pytest.mark.parametrize("name", ["chain", "mobile"])
def test_files_of_one_scale_a_layer_hold_them_too(name: str, pictures: Path, form: str) -> None:
    photos, scheme = sorted(pictures.iterdir()), Scheme(per_channel=False)
    source = prepared(source_of(name), photos, form, scheme)
    wanted = prepared_kernels(source.model, form, scheme)
    holds(shipped(source, form, photos, scheme), form, wanted)
    assert {len(kernel.steps) for kernel in wanted} == {1}


@pytest.mark.parametrize(("form", "scheme"), [("tflite", CORAL), ("onnx", X86)])
@pytest.mark.parametrize("name", ["chain", "mobile"])
def test_the_files_of_a_device_hold_them_too(
    name: str, form: str, scheme: Scheme, pictures: Path
) -> None:
    photos = sorted(pictures.iterdir())
    source = prepared(source_of(name), photos, form, scheme)
    content = shipped(source, form, photos, scheme)
    wanted = prepared_kernels(source.model, form, scheme)
    holds(content, form, wanted)
    if form == "onnx":
        assert max(np.abs(kernel.integers.astype(int)).max() for kernel in wanted) == REDUCED
    else:
        assert [len(kernel.steps) for kernel in wanted].count(1) == 1


@pytest.mark.parametrize(("form", "scheme"), [("tflite", CORAL), ("onnx", X86)])
def test_weights_of_another_grid_are_rounded_again(
    form: str, scheme: Scheme, pictures: Path
) -> None:
    """The comparison above can fail: what was prepared for every CPU isn't the device's."""
    photos = sorted(pictures.iterdir())
    source = prepared(source_of("mobile"), photos)
    content = shipped(source, form, photos, scheme)
    with pytest.raises((AssertionError, ValueError)):
        holds(content, form, prepared_kernels(source.model, form))


def test_preparing_twice_gives_the_same_bytes(form: str, pictures: Path) -> None:
    photos, source = sorted(pictures.iterdir()), source_of("mobile")
    first, second = (shipped(prepared(source, photos), form, photos) for _ in range(2))
    assert first == second


def test_stock_integers_are_others(pictures: Path) -> None:
    """The comparison above can fail: nearest rounding gives other integers."""
    photos, source = sorted(pictures.iterdir()), source_of("mobile")
    wanted = prepared_kernels(prepared(source, photos).model, "tflite")
    exported = FORMATS["tflite"].export(source, "int8", ExportOptions(tuple(photos)))
    stock = list(tflite_kernels(exported.content))
    matches = [k for k in wanted if any(np.array_equal(k.integers, s.integers) for s in stock)]
    assert len(matches) < len(wanted) / 2
