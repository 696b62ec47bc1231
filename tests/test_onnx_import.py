"""A float ONNX file is imported as the Keras model that gives onnxruntime's answers, or not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MODELS, Run
from kedge_convert.load import registry
from kedge_convert.load.request import SourceRequest
from kedge_convert.onnx_import.importing import imported_onnx
from kedge_convert.onnx_import.operators import ONNX_RULES
from kedge_convert.onnx_import.reading import read_onnx
from kedge_convert.program import proof
from kedge_convert.program.calls import OperatorImportError
from kedge_convert.toolkit import require
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.errors import ArtefactError, UsageError
from onnx_nets import IMAGE, OnnxWriter, mobile, residual, values

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
pytest.importorskip("onnxruntime")

SHAPE = (*IMAGE[1:], IMAGE[0])
Body = Callable[[OnnxWriter], str]


def content_of(data: bytes) -> ModelContent:
    return ModelContent(Path("it.onnx"), "onnx", data)


def imported(data: bytes) -> Any:
    return imported_onnx(read_onnx(content_of(data)), "it", SHAPE, planar=True)


def single(kind: str, *weights: Any, **attributes: Any) -> Body:
    """Return a body of one node on the image and weights."""
    return lambda w: str(w.node(kind, ["images", *map(w.weight, weights)], **attributes))


def pool(kind: str, size: int, step: int, **attributes: Any) -> Body:
    return single(kind, kernel_shape=[size] * 2, strides=[step] * 2, **attributes)


def transposed(size: int, pads: int, extra: int) -> Body:
    how = {"strides": [2, 2], "pads": [pads] * 4, "output_padding": [extra] * 2}
    return single("ConvTranspose", values(4, 5, size, size), values(5), **how)


def _gate(w: OnnxWriter) -> str:
    mean = w.node("ReduceMean", ["images"], axes=[2, 3], keepdims=1)
    return str(w.node("Mul", [w.node("Sigmoid", [mean]), "images"]))


def _attention(w: OnnxWriter) -> str:
    tokens = w.node("Reshape", ["images", w.integers(0, 4, -1)])
    tokens = w.node("Transpose", [tokens], perm=[0, 2, 1])
    scores = w.node("MatMul", [tokens, w.node("Transpose", [tokens], perm=[0, 2, 1])])
    return str(w.node("MatMul", [w.node("Softmax", [scores], axis=-1), tokens]))


def _norm(w: OnnxWriter) -> str:
    last = w.node("Transpose", ["images"], perm=[0, 2, 3, 1])
    last = w.node("LayerNormalization", [last, w.drawn(4), w.drawn(4)], axis=-1)
    return str(w.node("Transpose", [last], perm=[0, 3, 1, 2]))


def _shuffle(w: OnnxWriter) -> str:
    parts = w.node("Reshape", ["images", w.integers(1, 2, 2, 8, 6)])
    parts = w.node("Transpose", [parts], perm=[0, 2, 1, 3, 4])
    return str(w.node("Reshape", [parts, w.integers(-1, 4, 8, 6)]))


def _halves(w: OnnxWriter) -> str:
    one, other = w.node("Split", ["images", w.integers(1, 3)], 2, axis=1)
    return str(w.node("Concat", [other, one], axis=1))


# The operator that the case is about -> its nodes; words behind it tell cases apart.
CASES: dict[str, Body] = {
    "Add of channels": single("Add", values(4, 1, 1)),
    "AveragePool": pool("AveragePool", 3, 2),
    "AveragePool counted": pool("AveragePool", 3, 1, pads=[1] * 4, count_include_pad=1),
    "AveragePool same": pool("AveragePool", 3, 1, pads=[1] * 4),
    "BatchNormalization": lambda w: w.norm("images", 4),
    "Clip": single("Clip", np.float32(0), np.float32(6)),
    "Clip of both sides": single("Clip", np.float32(-1), np.float32(1)),
    "Concat": lambda w: str(w.node("Concat", ["images", w.node("Relu", ["images"])], axis=1)),
    "Conv": lambda w: w.conv("images", (4, 6)),
    "Conv automatic": lambda w: w.conv(
        "images", (4, 6), auto_pad="SAME_LOWER", pads=None, strides=[2, 2]
    ),
    "Conv depthwise": lambda w: w.conv("images", (4, 8), group=4, strides=[2, 2]),
    "Conv dilated": lambda w: w.conv("images", (4, 6), dilations=[2, 2]),
    "Conv grouped": lambda w: w.conv("images", (4, 6), group=2),
    "Conv with stride": lambda w: w.conv("images", (4, 6), strides=[2, 2]),
    "ConvTranspose": transposed(2, 0, 0),
    "ConvTranspose padded": transposed(4, 1, 0),
    "ConvTranspose with output padding": transposed(3, 1, 1),
    "Div by a number": single("Div", np.float32(3)),
    "Elu": single("Elu"),
    "Exp": single("Exp"),
    "Flatten": single("Flatten"),
    "Gather": single("Gather", np.array([2, -1], np.int64), axis=1),
    "Gather of one place": single("Gather", np.array(1, np.int64), axis=2),
    "Gemm": lambda w: str(
        w.node("Gemm", [w.flat("images"), w.drawn(5, 192), w.drawn(5)], transB=1, alpha=0.5)
    ),
    "GlobalAveragePool": single("GlobalAveragePool"),
    "GlobalMaxPool": single("GlobalMaxPool"),
    "HardSigmoid": single("HardSigmoid", alpha=1 / 6),
    "HardSigmoid of old": single("HardSigmoid"),
    "HardSwish": single("HardSwish"),
    "LayerNormalization": _norm,
    "LeakyRelu": single("LeakyRelu", alpha=0.1),
    "MatMul": _attention,
    "MaxPool": pool("MaxPool", 2, 2),
    "MaxPool padded": pool("MaxPool", 3, 2, pads=[1] * 4),
    "MaxPool to the end": pool("MaxPool", 3, 2, ceil_mode=1),
    "Mul": _gate,
    "PRelu": single("PRelu", values(4, 1, 1)),
    "Pad": single("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64)),
    "Pad reflected": single("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64), mode="reflect"),
    "ReduceMean": single("ReduceMean", axes=[2, 3], keepdims=0),
    "ReduceMean of channels": single("ReduceMean", axes=[1], keepdims=1),
    "Relu": single("Relu"),
    "Reshape": _shuffle,
    "Resize": lambda w: str(
        w.node(
            "Resize",
            ["images", "", w.weight(np.array([1, 1, 2, 2], np.float32))],
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    ),
    "Sigmoid": single("Sigmoid"),
    "Slice": single(
        "Slice",
        np.array([1, -4], np.int64),
        np.array([3, 1 << 40], np.int64),
        np.array([1, 3], np.int64),
        np.array([1, 2], np.int64),
    ),
    "Softmax": single("Softmax", axis=1),
    "Split": _halves,
    "Squeeze": lambda w: str(
        w.node("Squeeze", [w.node("GlobalAveragePool", ["images"]), w.integers(2, 3)])
    ),
    "Sub from a number": lambda w: str(w.node("Sub", [w.weight(np.float32(1.5)), "images"])),
    "Tanh": single("Tanh"),
    "Transpose": single("Transpose", perm=[0, 3, 1, 2]),
    "Unsqueeze": single("Unsqueeze", np.array([2], np.int64)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_is_imported_as_onnxruntime_computes_it(case: str) -> None:
    writer = OnnxWriter()
    data = writer.file(CASES[case](writer))
    program = read_onnx(content_of(data))
    assert case.split()[0] in {each.kind for each in program.operations}
    images = [values(1, *SHAPE) * scale for scale in (1, 3)]
    assert proof.is_same(content_of(data), imported(data), images, planar=True)


# Operators whose operands were attributes in older opsets.
OLDER: dict[str, tuple[int, Body]] = {
    "Clip": (10, single("Clip", min=0.0, max=6.0)),
    "Pad": (10, single("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1])),
    "ReduceMean": (12, single("ReduceMean", axes=[2, 3])),
    "Slice": (9, single("Slice", starts=[1], ends=[3], axes=[1])),
    "Softmax": (11, single("Softmax", axis=3)),
    "Squeeze": (
        11,
        lambda w: str(w.node("Squeeze", [w.node("GlobalMaxPool", ["images"])], axes=[2])),
    ),
    "Unsqueeze": (11, single("Unsqueeze", axes=[2])),
}


@pytest.mark.parametrize("case", OLDER)
def test_an_older_operator_is_imported_as_onnxruntime_computes_it(case: str) -> None:
    opset, body = OLDER[case]
    writer = OnnxWriter(opset=opset)
    data = writer.file(body(writer))
    assert proof.is_same(content_of(data), imported(data), [values(1, *SHAPE)], planar=True)


@pytest.mark.parametrize("batch", [1, "batch"])
def test_a_batch_of_images_gives_what_each_gives_alone(batch: int | str) -> None:
    images = values(3, *SHAPE)
    for case, body in CASES.items():
        writer = OnnxWriter(batch=batch)
        model = imported(writer.file(body(writer)))
        alone = [np.asarray(model(image[None])) for image in images]
        np.testing.assert_allclose(model(images), np.concatenate(alone), atol=1e-4, err_msg=case)


# What can't be imported -> words of the error, the operator's name first.
FOREIGN: dict[str, Body] = {
    "Tile": single("Tile", np.array([1, 2, 1, 1], np.int64)),
    "Add with a constant for each image of a batch": single("Add", values(2, 4, 8, 6)),
    "Reshape that mixes the images of a batch": single("Reshape", np.array([4, -1], np.int64)),
    "Transpose of the batch": single("Transpose", perm=[1, 0, 2, 3]),
    "Elu with an alpha of 0.5": single("Elu", alpha=0.5),
    "MaxPool with pads of two and more": pool("MaxPool", 5, 2, pads=[2] * 4),
    "Resize that doesn't count from pixels' centres": lambda w: str(
        w.node(
            "Resize",
            ["images", "", w.weight(np.array([1, 1, 2, 2], np.float32))],
            mode="linear",
            coordinate_transformation_mode="align_corners",
        )
    ),
}


@pytest.mark.parametrize("reason", FOREIGN)
def test_what_cant_be_imported_is_named(reason: str) -> None:
    writer = OnnxWriter()
    data = writer.file(FOREIGN[reason](writer))
    with pytest.raises(OperatorImportError, match=f"^{reason}$"):
        imported(data)


NETS: dict[str, Callable[[OnnxWriter], bytes]] = {"mobile": mobile, "residual": residual}


def saved(folder: Path, net: str, opset: int = 17) -> Path:
    writer = OnnxWriter((3, 64, 64), opset=opset)
    path = folder / f"{net}.onnx"
    path.write_bytes(NETS[net](writer))
    return path


# HardSwish came with opset 14, the sums' axes as an operand with 13, the means' with 18.
@pytest.mark.parametrize(("net", "opset"), [("mobile", 14), ("mobile", 17), ("residual", 13)])
def test_a_net_as_torch_writes_it_is_the_same_function(
    tmp_path: Path, net: str, opset: int
) -> None:
    path = saved(tmp_path, net, opset)
    loaded = registry.load(SourceRequest(str(path)))
    assert loaded.model.inputs[0].shape == (None, 64, 64, 3)
    content = content_of(path.read_bytes())
    assert proof.is_same(content, loaded.model, [values(1, 64, 64, 3)], planar=True)


def test_a_wrong_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "mobile")
    monkeypatch.setitem(ONNX_RULES, "HardSwish", ONNX_RULES["Relu"])
    with pytest.raises(UsageError, match="answers otherwise than onnxruntime"):
        registry.load(SourceRequest(str(path)))


# Nets whose answers are not finite for some inputs: of negative numbers, and of zero, too.
PARTLY: dict[str, Callable[[OnnxWriter], str]] = {
    "a fractional power": lambda w: str(w.node("Pow", ["images", w.weight(np.float32(0.45))])),
    "a negative power": lambda w: str(w.node("Pow", ["images", w.weight(np.float32(-0.5))])),
    "a logarithm": lambda w: str(w.node("Log", ["images"])),
}


def partly(folder: Path, case: str) -> Path:
    writer = OnnxWriter((3, 16, 16))
    value = writer.conv(PARTLY[case](writer), (3, 8))
    value = writer.flat(writer.node("GlobalAveragePool", [value]))
    head = [writer.drawn(5, 8), writer.drawn(5, scale=0.1)]
    path = folder / "partly.onnx"
    path.write_bytes(writer.file(writer.node("Gemm", [value, *head], transB=1)))
    return path


@pytest.mark.parametrize("case", PARTLY)
def test_a_net_without_answers_to_some_inputs_is_proven_on_others(
    tmp_path: Path, case: str
) -> None:
    loaded = registry.load(SourceRequest(str(partly(tmp_path, case))))
    assert loaded.model.outputs[0].shape == (None, 5)


def test_a_wrong_import_of_such_a_net_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ONNX_RULES, "Log", ONNX_RULES["Sqrt"])
    with pytest.raises(UsageError, match="answers otherwise than onnxruntime"):
        registry.load(SourceRequest(str(partly(tmp_path, "a logarithm"))))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, number: float) -> None:
    """The import is right, so the message must not ask for plainer operators."""
    path = saved(tmp_path, "mobile")
    model = require("onnx").load(path)
    kernel = next(each for each in model.graph.initializer if len(each.dims) == 4)
    spoilt = np.array(require("onnx").numpy_helper.to_array(kernel))
    spoilt.flat[0] = number
    kernel.CopyFrom(require("onnx").numpy_helper.from_array(spoilt, kernel.name))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"mobile\.onnx: the weights .* are not finite"):
        registry.load(SourceRequest(str(path)))


def test_what_is_no_float_classifier_is_refused_before_tensorflow(tmp_path: Path) -> None:
    path = tmp_path / "it.onnx"
    model = require("onnx").load(MODELS / "tiny.onnx")
    extra = require("onnx").helper.make_tensor_value_info("more", 1, [1, 3])
    model.graph.input.append(extra)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="has 2 inputs"):
        registry.check(SourceRequest(str(path)))
    writer = OnnxWriter()
    path.write_bytes(writer.file(str(writer.node("NonZero", ["images"]))))
    with pytest.raises(UsageError, match="can't import its operator NonZero"):
        registry.check(SourceRequest(str(path)))
    path.write_bytes(b"\x08\x07" + bytes(20))
    with pytest.raises(ArtefactError):
        registry.check(SourceRequest(str(path)))


def test_an_open_size_needs_the_option(tmp_path: Path) -> None:
    writer = OnnxWriter()
    writer.shape = (3, "height", "width")  # type: ignore[assignment]
    path = tmp_path / "open.onnx"
    path.write_bytes(mobile(writer))
    with pytest.raises(UsageError, match="give --size"):
        registry.load(SourceRequest(str(path)))
    loaded = registry.load(SourceRequest(str(path), size="48x64"))
    assert loaded.model.inputs[0].shape == (None, 48, 64, 3)


def test_a_net_converts_to_both_formats(tmp_path: Path, kedge: Run, pictures: Path) -> None:
    path, labels = saved(tmp_path, "residual"), tmp_path / "labels.txt"
    labels.write_text("\n".join(f"class {i}" for i in range(10)))
    # Random weights: what integers miss is no matter of this test.
    words = ("--preprocess", "imagenet", "--normalisation", "torch", "--min-agreement", "0")
    code, _, err = kedge(
        *("convert", path, "--to", "tflite:int8,onnx:float32,onnx:int8", "--calibrate", pictures),
        *("--labels", labels, "--out", tmp_path / "out", *words),
    )
    assert code == 0, err
    assert "head: softmax" in err
    names = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert names == ["residual.float32.onnx", "residual.int8.onnx", "residual.int8.tflite"]
    assert "prepare weights" in err
    assert "stock weights:" not in err


def test_an_artefact_brings_its_contract(
    contracts: dict[str, Contract], golden: Golden, tmp_path: Path
) -> None:
    path = MODELS / "tiny.onnx"
    sealed = tmp_path / "it.onnx"
    sealed.write_bytes(seal("onnx", path.read_bytes(), contracts["onnx"], golden))
    loaded = registry.load(SourceRequest(str(sealed)))
    assert loaded.facts.labels == contracts["onnx"].labels
    assert loaded.facts.normalisation == contracts["onnx"].input.normalisation


def test_a_quantised_file_is_refused_in_a_line(tmp_path: Path) -> None:
    writer = OnnxWriter()
    scale, zero = writer.weight(np.float32(0.1)), writer.weight(np.int8(0))
    integers = writer.weight(np.ones((5, 4, 1, 1), np.int8))
    kernel = writer.node("DequantizeLinear", [integers, scale, zero])
    path = tmp_path / "it.onnx"
    path.write_bytes(writer.file(str(writer.node("Conv", ["images", kernel]))))
    with pytest.raises(UsageError, match="its weights are dynamic; kedge converts float32 and"):
        registry.check(SourceRequest(str(path)))
