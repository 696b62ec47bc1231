"""`kedge seal` on ONNX: the kind of output, weights elsewhere, and grey images of every layout."""

import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import MODELS, Run
from foreign_files import (
    WORDS,
    raw,
)
from kedge_runtime.classify.classifier import Classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")


def _onnx(path: Path, tail: list[str], batch: int | str = 1) -> Path:
    """Write `tiny.onnx` with more operators behind its logits."""
    model = onnx.load(MODELS / "tiny.onnx")
    graph, last = model.graph, "logits"
    for number, kind in enumerate(tail):
        name = f"value{number}"
        taken = [last, "sum"] if kind == "Div" else [last]
        if kind == "Div":
            axes = onnx.numpy_helper.from_array(np.array([1], np.int64), "last")
            graph.initializer.append(axes)
            graph.node.append(onnx.helper.make_node("ReduceSum", [last, "last"], ["sum"]))
        graph.node.append(onnx.helper.make_node(kind, taken, [name]))
        last = name
    ends = [("input", [batch, 8, 8, 3], graph.input), (last, [batch, 4], graph.output)]
    for name, shape, place in ends:
        del place[:]
        place.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (["Softmax"], "softmax (its last operator)"),
        (["Sigmoid", "Identity"], "sigmoid (its last operator)"),
        (["LogSoftmax"], "logits (its last operator)"),
        (["Exp", "Div"], "softmax (its outputs are within 0..1 and add up to 1)"),
    ],
)
@pytest.mark.parametrize("batch", [1, "n"])
def test_the_kind_is_found_and_said(
    tmp_path: Path, labels: Path, kedge: Run, tail: list[str], said: str, batch: int | str
) -> None:
    path = _onnx(tmp_path / "x.onnx", tail, batch)
    code, out, err = kedge("seal", path, "--labels", labels, *WORDS[:4])
    assert (code, err) == (0, "")
    assert f"output: 4 numbers, {said}" in out
    assert kedge("verify", tmp_path / "x.sealed.onnx")[0] == 0


@pytest.mark.parametrize("tail", [["Softmax"], ["Exp", "Div"]])
def test_nothing_is_softmaxed_twice(
    tmp_path: Path, labels: Path, kedge: Run, tail: list[str]
) -> None:
    path = _onnx(tmp_path / "x.onnx", tail)
    code, _, err = kedge("seal", path, "--labels", labels, *WORDS)
    assert (code, err.count("\n")) == (2, 1)
    assert "--head logits: " in err


def test_weights_in_another_file_are_refused_with_a_remedy_that_works(
    tmp_path: Path, labels: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx.load(MODELS / "tiny.onnx")
    for tensor in model.graph.initializer:
        tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
    onnx.save(model, "apart.onnx", save_as_external_data=True, size_threshold=0)
    call = ("--labels", labels, *WORDS)
    code, _, err = kedge("seal", "apart.onnx", *call)
    assert (code, err.count("\n")) == (2, 1)
    command = shlex.split(err.partition("join them with ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert kedge("seal", "whole.onnx", *call)[0] == 0
    assert kedge("verify", "whole.sealed.onnx")[0] == 0


# Grey images.
GREY = {"nhwc": [1, 8, 8, 1], "nchw": [1, 1, 8, 8], "nhw": [1, 8, 8], "flat": [1, 64]}


@pytest.mark.parametrize("layout", GREY)
def test_grey_models_of_every_layout_are_sealed(
    tmp_path: Path, labels: Path, kedge: Run, layout: str
) -> None:
    """Pillow makes the pixels grey, onnxruntime answers them: kedge gives the same numbers."""
    pil = pytest.importorskip("PIL.Image")
    weights = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Reshape", ["input", "shape"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        onnx.helper.make_node("Softmax", ["scores"], ["output"]),
    ]
    real = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "grey",
        [onnx.helper.make_tensor_value_info("input", real, GREY[layout])],
        [onnx.helper.make_tensor_value_info("output", real, [1, 4])],
        [
            onnx.numpy_helper.from_array(np.array([1, 64], np.int64), "shape"),
            onnx.numpy_helper.from_array(weights, "weights"),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    path = tmp_path / "grey.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    words = ("--labels", labels, "--preprocess", "load_img", "--normalisation", "unit")
    code, out, err = kedge("seal", path, *words)
    assert (code, err) == (0, "")
    assert out.startswith("input: 8x8 grey, nearest, stretch, no EXIF, x / 255 (")
    sealed = tmp_path / "grey.sealed.onnx"
    assert kedge("verify", sealed)[0] == 0
    image = np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8)
    grey = np.asarray(pil.fromarray(image).convert("L"), np.float32) / np.float32(255)
    expected = raw(path, grey.reshape(GREY[layout]))
    np.testing.assert_allclose(Classifier.open(sealed).outputs(image), expected, atol=1e-6)


def test_a_public_digits_file_without_a_channel_axis_is_sealed(
    shared: Path, tmp_path: Path, kedge: Run
) -> None:
    """Its input is uint8 [1, 28, 28]: x / 255 by its own scale."""
    labels, path = tmp_path / "digits.txt", tmp_path / "digits.tflite"
    labels.write_text("".join(f"{digit}\n" for digit in range(10)))
    model = shared / "data" / "edgetpu" / "keras_lstm_mnist_ptq.tflite"
    words = ("--labels", labels, "--preprocess", "load_img", "--out", path)
    code, out, err = kedge("seal", model, *words)
    assert (code, err) == (0, "")
    assert "28x28 grey, nearest, stretch, no EXIF, x / 255 (" in out
    assert kedge("verify", path)[0] == 0
    one = np.zeros((28, 28, 3), np.uint8)
    cv2.line(one, (14, 4), (14, 24), (255, 255, 255), 3)
    assert Classifier.open(path)(one).best.name == "1"
