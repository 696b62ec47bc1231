"""Models of one channel: pixels as Pillow's convert("L") makes them, in every layout and engine."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_convert.export.tflite import describe
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import (
    Contract,
    Geometry,
    Input,
    Label,
    Normalisation,
    Output,
    Quantisation,
    Tensor,
)
from kedge_runtime.artefact.kinds import Layout
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import ContractError, EngineError
from kedge_runtime.image.preprocessing import Preprocessor, preprocess, table
from kedge_runtime.modelfile import tflite_metadata
from kedge_runtime.streams.answers import classify_stream

GREY = Normalisation("grey", 255.0, (0.0,), (1.0,))
SIZE = (6, 10)
SHAPES: dict[Layout, tuple[int, ...]] = {
    "nhwc": (1, 6, 10, 1),
    "nchw": (1, 1, 6, 10),
    "nhw": (1, 6, 10),
    "flat": (1, 60),
}


def _spec(layout: Layout = "nhwc", **tensor: Any) -> Input:
    geometry = Geometry(*SIZE, "pillow_bilinear", "stretch", orientation="ignore")
    return Input(geometry, GREY, Tensor(layout=layout, **tensor))


def _noise(height: int = 31, width: int = 23) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def _png(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_grey_is_pillows_for_every_colour_of_a_fine_grid() -> None:
    image = pytest.importorskip("PIL.Image")
    steps = np.arange(0, 256, 3).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(86, -1, 3)
    plan = Preprocessor(Input(Geometry(*colours.shape[:2], "nearest", "stretch"), GREY))
    expected = np.asarray(image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(plan.fit(colours), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "1"])
def test_every_kind_of_png_is_pillows_grey(mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    content = _png(image.fromarray(_noise()).convert(mode))
    opened = image.open(io.BytesIO(content)).convert("L")
    resized = opened.resize(SIZE[::-1], image.Resampling.BILINEAR)
    expected = np.asarray(resized, np.float32)[None, ..., None] / 255
    np.testing.assert_array_equal(preprocess(_spec(), content), expected)


@pytest.mark.parametrize("layout", SHAPES)
def test_each_layout_has_its_shape_and_the_same_numbers(layout: Layout) -> None:
    expected = preprocess(_spec(), _noise())
    found = preprocess(_spec(layout), _noise())
    assert found.shape == SHAPES[layout] == _spec(layout).shape
    np.testing.assert_array_equal(found.reshape(-1), expected.reshape(-1))


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8"])
def test_a_table_has_one_channel(dtype: Any) -> None:
    step = None if dtype == "float16" else Quantisation(1 / 255, -128 if dtype == "int8" else 0)
    spec = _spec("flat", dtype=dtype, quantisation=step)
    assert table(GREY, spec.tensor).shape == (1, 256, 1)
    found = preprocess(spec, _noise())
    assert (found.shape, found.dtype) == ((1, 60), np.dtype(dtype))


@pytest.mark.parametrize("layout", ["nhw", "flat"])
def test_colour_needs_an_axis(layout: Layout) -> None:
    with pytest.raises(ContractError, match=f"layout {layout} has one channel, .* is rgb"):
        Input(Geometry(8, 8), Normalisation(), Tensor(layout=layout))


def _contract(layout: Layout) -> Contract:
    labels = tuple(Label(str(i), f"n{i}") for i in range(4))
    return Contract(_spec(layout), Output("logits"), labels)


def _tflite(path: Path, shape: tuple[int, ...]) -> None:
    pytest.importorskip("tensorflow")
    from kedge_convert.toolkit import require

    tf, keras = require("tensorflow"), require("keras")
    keras.utils.set_random_seed(3)
    entry = keras.Input(batch_shape=shape)
    model = keras.Model(entry, keras.layers.Dense(4)(keras.layers.Flatten()(entry)))
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _onnx(path: Path, shape: tuple[int, ...]) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["row"]),
        helper.make_node("MatMul", ["row", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "grey",
        [helper.make_tensor_value_info("x", kind, ["n", *shape[1:]])],
        [helper.make_tensor_value_info("y", kind, ["n", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())


ENGINES = {"litert": ("tflite", _tflite), "onnxruntime": ("onnx", _onnx), "opencv": ("onnx", _onnx)}


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_takes_grey_models(tmp_path: Path, engine: str, layout: Layout) -> None:
    form, make = ENGINES[engine]
    path = tmp_path / f"grey.{form}"
    make(path, SHAPES[layout])
    unstated = replace(_contract(layout), input=replace(_spec(), tensor=Tensor()), labels=())
    classifier = Classifier.open(path, threads=1, engine=engine, contract=unstated)
    assert classifier.contract.input.tensor.layout == layout
    pixels = _noise()
    flat = cv2.resize(pixels[..., 0], SIZE[::-1])
    assert classifier(pixels).best.probability > 0
    # A grey array and the same three times are one image.
    thrice = np.repeat(flat[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        classifier.probabilities(flat), classifier.probabilities(thrice, "bgr")
    )
    (first,) = classify_stream(classifier, iter([pixels]), colour="bgr")
    expected = classifier.probabilities(pixels, "bgr")
    assert first.result.best.probability == pytest.approx(float(expected.max()))


def test_a_colour_contract_for_a_grey_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grey.onnx"
    _onnx(path, (1, 6, 10, 1))
    colour = replace(_contract("nhwc"), input=Input(Geometry(*SIZE), Normalisation()))
    with pytest.raises(EngineError, match=r"input shape is \(1, 6, 10, 1\), .* \(1, 6, 10, 3\)"):
        Classifier.open(path, contract=colour)


def test_four_channels_are_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "four.onnx"
    _onnx(path, (1, 5, 3, 4))
    with pytest.raises(EngineError, match=r"four channels, .*adds the fourth channel itself"):
        Classifier.open(path, contract=_contract("nhwc"))


def test_tflite_metadata_says_grey(tmp_path: Path) -> None:
    path = tmp_path / "grey.tflite"
    _tflite(path, SHAPES["nhwc"])
    contract = _contract("nhwc")
    path.write_bytes(describe(path.read_bytes(), contract).content)
    found = tflite_metadata.read(read_content(path)).normalisation
    assert found is not None
    assert found == Normalisation("grey", 1.0, (0.0,), (255.0,))
    np.testing.assert_allclose(table(found, Tensor()), table(GREY, Tensor()), atol=1e-7)


def test_no_metadata_without_a_channel_axis(tmp_path: Path) -> None:
    path = tmp_path / "grey.tflite"
    _tflite(path, SHAPES["nhw"])
    exported = describe(path.read_bytes(), _contract("nhw"))
    assert "no TFLite Metadata: its readers want images with a channel axis" in exported.notes[0]


def test_tensorflows_grey_is_libpngs_which_cuts() -> None:
    """png_set_rgb_to_gray of libpng 1.6 in integers; Pillow's luma rounds."""
    pixels = _noise(*SIZE)
    plan = Preprocessor(Input(Geometry(*SIZE, "tf_bilinear", "stretch"), GREY))
    red, green, blue = pixels.astype(int).transpose(2, 0, 1)
    expected = (9797 * red + 19234 * green + 3737 * blue) >> 15
    np.testing.assert_array_equal(plan.fit(pixels)[..., 0], expected)
    pillows = Preprocessor(Input(Geometry(*SIZE, "nearest", "stretch"), GREY)).fit(pixels)
    assert (pillows[..., 0] != expected).any()


def test_a_contract_stands_for_its_input() -> None:
    np.testing.assert_array_equal(
        preprocess(_contract("nhwc"), _noise()), preprocess(_spec(), _noise())
    )
