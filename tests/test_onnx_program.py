"""The writer of ONNX against LiteRT, tensor by tensor, and against tf2onnx and OpenCV."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import float_programs
from float_programs import PROGRAMS
from kedge_convert.export import flatbuffer, onnx_graph, tf2onnx, tflite_static
from kedge_convert.export.onnx_graph import INPUT, OUTPUT
from kedge_convert.export.onnx_program import writing
from kedge_convert.export.onnx_program.calls import ForeignOperatorError
from kedge_convert.export.onnx_program.writing import RULES, Written
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.output import quiet

onnx: Any = pytest.importorskip("onnx", reason="the converter needs keras-kedge[convert]")
pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow

COUNT = re.compile(r"\.\d+$")
# Of the largest number of a tensor: sums in another order.
EXACT = 1e-5


def run(model: Any, image: Floats, names: list[str]) -> list[Floats]:
    """Return values of a ModelProto by onnxruntime, nothing fused."""
    runtime = require("onnxruntime")
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    present = {INPUT, *(each.name for each in whole.graph.output)}
    whole.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name)
        for name in dict.fromkeys(names)
        if name not in present
    )
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(whole.SerializeToString(), options)
    wanted = [name for name in dict.fromkeys(names) if name != INPUT]
    values = dict(zip(wanted, session.run(wanted, {INPUT: image}), strict=True))
    return [values.get(name, image) for name in names]


def off(found: Floats, expected: Floats) -> float:
    """Return the largest error as a share of the largest number, in whichever layout."""
    orders = [found] if found.ndim != 4 else [found, found.transpose(0, 2, 3, 1)]
    errors = [np.abs(each - expected).max() for each in orders if each.shape == expected.shape]
    return float(min(errors, default=np.inf) / max(np.abs(expected).max(), 1e-9))


def judged(content: bytes, image: Floats) -> tuple[Written, dict[str, float]]:
    """Return what is written of a file, and each activation's error against LiteRT."""
    written = writing.write(content)
    onnx.checker.check_model(written.model, full_check=True)
    expected = dict(tflite_static.observed(content, [image]))
    names = [name for name in written.names if name in expected]
    answer, *values = run(written.model, image, [OUTPUT, *(written.names[name] for name in names)])
    pairs = zip(names, values, strict=True)
    errors = {name: off(value, expected[name]) for name, value in pairs}
    last = expected[output_of(content)]
    assert answer.shape == last.shape
    return written, {**errors, OUTPUT: float(np.abs(answer - last).max() / np.abs(last).max())}


def output_of(content: bytes) -> str:
    """Return the name of a program's output."""
    graph = flatbuffer.unpack(content).subgraphs[0]
    return str(graph.tensors[graph.outputs[0]].name.decode())


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_activation_is_that_of_litert(name: str) -> None:
    """Under its own name: ranges of the one file hold for the other."""
    content = float_programs.made(name)
    written, errors = judged(content, PROGRAMS[name].values())
    assert max(errors.values()) <= EXACT
    firsts = {name.partition(";")[0] for name in written.names}
    values = {COUNT.sub("", value) for value in written.names.values()}
    assert values <= {INPUT, OUTPUT, *firsts}


def test_every_rule_is_tried() -> None:
    kinds = set().union(*(float_programs.operators(float_programs.made(name)) for name in PROGRAMS))
    # DEQUANTIZE and SHAPE are below; the converter writes the other two as RESHAPE by now.
    others = {"DEQUANTIZE", "EXPAND_DIMS", "SHAPE", "SQUEEZE", *RENAMED}
    assert RULES.keys() - kinds - others == set()


# Operators that the converter writes seldom -> a program, and the operator that gives way.
RENAMED = {
    "GREATER": ("choices", "GREATER_EQUAL"),
    "PRELU": ("add of a picture", "ADD"),
    "RELU_0_TO_1": ("relu6", "RELU6"),
    "SELECT_V2": ("choices", "SELECT"),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_what_the_converter_seldom_writes(kind: str) -> None:
    name, old = RENAMED[kind]
    content = float_programs.renamed(name, old, kind)
    assert kind in float_programs.operators(content)
    _, errors = judged(content, PROGRAMS[name].values())
    assert max(errors.values()) <= EXACT


def test_a_shape_is_known() -> None:
    content = float_programs.behind_its_shape("relu6")
    assert {"SHAPE", "RESHAPE"} <= float_programs.operators(content)
    written, errors = judged(content, PROGRAMS["relu6"].values())
    assert max(errors.values()) <= EXACT
    assert kinds_of(written.model) == ["Clip", "Identity"]


def test_float16_kernels_are_widened_and_folded() -> None:
    content = float_programs.halved("conv relu6")
    assert "DEQUANTIZE" in float_programs.operators(content)
    written, errors = judged(content, PROGRAMS["conv relu6"].values())
    assert max(errors.values()) <= EXACT
    assert [node.op_type for node in written.model.graph.node] == [
        "Transpose",
        "Conv",
        "Clip",
        "Transpose",
    ]


def by_tf2onnx(content: bytes, folder: Path) -> Any:
    """Return the ModelProto of a file by tf2onnx, in the form in which its route gives it."""
    tf2onnx.register_gelu()
    tf2onnx.register_dense()
    path = folder / "program.tflite"
    path.write_bytes(content)
    with quiet():
        model = require("tf2onnx").convert.from_tflite(str(path), opset=tf2onnx.OPSET)[0]
    return onnx_graph.canonical(tf2onnx.reduced(onnx_graph.put_back(model, {})))


@pytest.mark.parametrize("name", PROGRAMS)
def test_tf2onnx_judges(name: str, tmp_path: Path) -> None:
    """The same numbers from no more nodes, wherever it has the operators and gets them right."""
    content, image = float_programs.made(name), PROGRAMS[name].values()
    model = writing.write(content).model
    (found,) = run(model, image, [OUTPUT])
    try:
        judge = by_tf2onnx(content, tmp_path)
        (expected,) = run(judge, image, [OUTPUT])
    # It raises whatever its parts raise.
    except Exception:
        assert name in NOT_BY_TF2ONNX
        return
    agrees = found.shape == expected.shape and off(found, expected) <= EXACT
    assert agrees == (name not in NOT_BY_TF2ONNX)
    assert len(model.graph.node) <= len(judge.graph.node) + MORE_NODES.get(name, 0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_opencv_runs_it_too(name: str) -> None:
    image, model = PROGRAMS[name].values(), writing.write(float_programs.made(name)).model
    (expected,) = run(model, image, [OUTPUT])
    assert in_opencv(model, image, expected) == (name not in UNKNOWN_TO_OPENCV)


def in_opencv(model: Any, image: Floats, expected: Floats) -> bool:
    """Whether OpenCV runs a model right."""
    try:
        with quiet():
            network = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
            network.setInput(image)
            found = np.asarray(network.forward(), np.float32)
    except cv2.error:
        return False
    return found.size == expected.size and off(found.reshape(expected.shape), expected) <= 1e-4


def kinds_of(model: Any) -> list[str]:
    """Return the operators of a ModelProto, in order."""
    return [node.op_type for node in model.graph.node]


def test_transposes_stand_only_where_layouts_meet() -> None:
    """At the ends: between them all operators go by the convolutions' order."""
    for name in ("gate", "layer norm", "concat", "dense on every pixel", "prelu"):
        kinds = kinds_of(writing.write(float_programs.made(name)).model)
        assert kinds.count("Transpose") == 2, name
        assert (kinds[0], kinds[-1]) == ("Transpose", "Transpose"), name


def test_padding_becomes_the_convolution_s() -> None:
    model = writing.write(float_programs.made("conv behind padding")).model
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    pads = {each.name: each for each in conv.attribute}["pads"].ints
    assert list(pads) == [0, 2, 1, 1]
    assert "Pad" not in kinds_of(model)


def test_the_odd_pad_comes_after() -> None:
    model = writing.write(float_programs.made("conv of stride 2, odd and even")).model
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    pads = {each.name: each for each in conv.attribute}["pads"].ints
    assert list(pads) == [1, 0, 1, 1]


def test_a_shared_kernel_is_there_once() -> None:
    model = writing.write(float_programs.made("two convs of one kernel")).model
    assert kinds_of(model).count("Conv") == 2
    kernels = [each for each in model.graph.initializer if len(each.dims) == 4]
    assert len(kernels) == 1


def test_an_operator_without_a_rule_is_named() -> None:
    tf = require("tensorflow")
    taken = tf.TensorSpec((1, 4), tf.float32, name=INPUT)
    function = tf.function(lambda value: tf.cumsum(value, 1))
    concrete = function.get_concrete_function(taken)
    content = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    with pytest.raises(ForeignOperatorError, match=r"^no rule for CUMSUM$"):
        writing.write(content)


def test_two_tensors_of_one_name_are_two_values() -> None:
    """Names are those of a file that others may have written."""
    model = flatbuffer.unpack(float_programs.made("gate"))
    for tensor in model.subgraphs[0].tensors:
        tensor.name = b"logits"
    written = writing.write(flatbuffer.pack(model))
    onnx.checker.check_model(written.model, full_check=True)
    image = PROGRAMS["gate"].values()
    found, expected = (
        run(each.model, image, [OUTPUT])[0]
        for each in (written, writing.write(float_programs.made("gate")))
    )
    np.testing.assert_array_equal(found, expected)


# OpenCV's own GELU is the exact one.
UNKNOWN_TO_OPENCV = frozenset({"gelu by tanh"})
# Programs that tf2onnx refuses, or whose numbers are not LiteRT's.
NOT_BY_TF2ONNX = frozenset(
    {
        "conv relu from -1 to 1",
        "mask",
        "relu from -1 to 1",
        "transposed conv 1 2 SAME",
        "transposed conv 1 2 VALID",
        "transposed conv 2 3 SAME",
        "transposed conv 2 3 VALID",
    }
)
# Programs of which it writes fewer nodes, and how many. Its norm has no least value; it moves
# transposes over what stands behind them.
MORE_NODES = {"broadcast": 2, "l2 normalisation": 2, "pack": 1, "transpose": 1, "turn": 1}
