"""Stock TFLite files, as everybody's script makes them, and Teachable Machine's zips of them.

TensorFlow's own converter makes the files, Keras, Pillow and LiteRT say what the answers are.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Run
from foreign_files import raw
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.image.preprocessing import preprocess

pytest.importorskip("tensorflow", reason="stock files are made by TensorFlow")
litert = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")


SIDE = 32
LABELS = "0 cat\n1 dog\n2 bird\n"


@dataclass(frozen=True)
class Stock:
    """A folder with `model_unquant.tflite` and `model.tflite` (uint8), and their Keras model."""

    folder: Path
    model: Any


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Stock:
    """Train nothing: random weights, wide enough that answers differ."""
    from kedge_convert.toolkit import require
    from kedge_runtime.output import quiet

    folder = tmp_path_factory.mktemp("stock")
    (folder / "labels.txt").write_text(LABELS)
    with quiet():
        model = _model(require("keras"))
        makers: dict[str, Callable[[Any, Any], Any]] = {
            "model_unquant": lambda _, converter: converter,
            "model": _quantised,
        }
        for name, maker in makers.items():
            lite = require("tensorflow").lite
            converter = maker(pictures, lite.TFLiteConverter.from_keras_model(model))
            (folder / f"{name}.tflite").write_bytes(converter.convert())
    return Stock(folder, model)


def _model(keras: Any) -> Any:
    keras.utils.set_random_seed(3)
    layers, wide = keras.layers, keras.initializers.RandomNormal(stddev=3.0)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3), batch_size=1),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, kernel_initializer=wide),
            layers.Softmax(),
        ]
    )


def _quantised(pictures: Path, converter: Any) -> Any:
    """Ask for uint8 ends, as Teachable Machine and Coral's notebooks do."""
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([_fed(path)] for path in pictures.iterdir())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter


def _fed(path: Path) -> NDArray[np.float32]:
    """Return what training fed: image_dataset_from_directory, then x / 127.5 - 1."""
    import keras

    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    small = keras.ops.image.resize(image.astype(np.float32), (SIDE, SIDE))
    return np.asarray(small, np.float32)[None] / np.float32(127.5) - 1


def _zip(folder: Path, name: str, place: Path) -> Path:
    path = place / "converted_tflite.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in (f"{name}.tflite", "labels.txt"):
            archive.write(folder / member, member)
    return path


def _sealed(stock: Stock, name: str, place: Path, kedge: Run, *words: object) -> Path:
    path = place / f"{name}.sealed.tflite"
    file, labels = stock.folder / f"{name}.tflite", stock.folder / "labels.txt"
    geometry = ("--preprocess", "image_dataset")
    named = () if "--labels" in words else ("--labels", labels)
    code, _, err = kedge("seal", file, *named, *geometry, *words, "--out", path)
    assert (code, err) == (0, "")
    return path


def test_a_stock_file_answers_as_its_keras_model_on_training_pixels(
    stock: Stock, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    path = _sealed(stock, "model_unquant", tmp_path, kedge, "--normalisation", "tf")
    assert kedge("verify", path)[0] == 0
    classifier = Classifier.open(path)
    assert classifier.contract.output.kind == "softmax"
    photos = sorted(pictures.iterdir())[:20]
    expected = np.concatenate([stock.model(_fed(photo)) for photo in photos])
    found = np.stack([classifier.probabilities(photo) for photo in photos])
    assert np.abs(expected - found).max() < 0.02  # a step of 255 in the resize, no more
    assert expected.std(axis=0).max() > 0.1


def test_uint8_takes_the_bytes_whatever_its_scale(stock: Stock, tmp_path: Path, kedge: Run) -> None:
    """At a scale of 1/127.5 every byte of x / 127.5 - 1 lies between two integers."""
    path = _sealed(stock, "model", tmp_path, kedge)
    contract = read_artefact(path).contract
    scale = contract.input.tensor.quantisation
    assert scale is not None
    assert contract.input.tensor.dtype == "uint8"
    image = np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3).astype(np.uint8)
    assert np.array_equal(preprocess(contract, image)[0], image)
    colours = read_artefact(_sealed(stock, "model", tmp_path, kedge, "--colour", "bgr")).contract
    assert np.array_equal(preprocess(colours, image)[0], image[..., ::-1])


def test_two_foreign_files_are_held_against_each_other(
    stock: Stock, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    integer = _sealed(stock, "model", tmp_path, kedge)
    exact = _sealed(stock, "model_unquant", tmp_path, kedge, "--normalisation", "tf")
    call = ("drift", integer, "--images", pictures, "--min-agreement", ".6")
    record = tmp_path / "answers.npz"
    code, out, err = kedge(*call, "--against", exact, "--record", record)
    assert code == 0, (out, err)
    assert kedge(*call, "--against", record)[0] == 0
    # A file fed otherwise than it was trained drifts, and that is found.
    wrong = tmp_path / "wrong.tflite"
    _sealed(stock, "model_unquant", tmp_path, kedge, "--normalisation", "raw").rename(wrong)
    code, out, _ = kedge(
        "drift", wrong, "--images", pictures, "--min-agreement", ".97", "--against", record
    )
    assert code == 1, out


def test_drift_against_what_nobody_can_know_is_refused(
    stock: Stock, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    path = _sealed(stock, "model", tmp_path, kedge)
    call = ("drift", path, "--images", pictures, "--against")
    code, _, err = kedge(*call, "demo")
    assert (code, err.count("\n")) == (2, 1)
    assert "has no float model; give another artefact" in err
    other = tmp_path / "other.tflite"
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    _sealed(stock, "model", tmp_path, kedge, "--labels", tmp_path / "names.txt").rename(other)
    path = _sealed(stock, "model", tmp_path, kedge)
    code, _, err = kedge(*call, other)
    assert (code, err.count("\n")) == (2, 1)
    assert "its labels differ from those of" in err
    code, _, err = kedge(*call, other, "--attribute", 3)
    assert code == 2
    assert "--attribute: needs the float model" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model_unquant", "x / 127.5 - 1 (Teachable Machine's zip)"),
        ("model", "(Teachable Machine's zip; bytes as they are: uint8 input)"),
    ],
)
def test_teachable_machines_zip_is_taken_as_it_is(
    stock: Stock, pictures: Path, tmp_path: Path, kedge: Run, name: str, said: str
) -> None:
    """The judge does what Teachable Machine's own example does: ImageOps.fit, then LiteRT."""
    pil = pytest.importorskip("PIL.Image")
    from PIL import ImageOps

    path = _zip(stock.folder, name, tmp_path)
    photos = sorted(pictures.iterdir())[:10]
    code, out, err = kedge("classify", path, *photos, "--top", 1)
    assert code == 0, err
    assert said in err
    code, _, err = kedge("seal", path)
    assert (code, err) == (0, "")
    sealed = tmp_path / "converted_tflite.sealed.tflite"
    assert kedge("verify", sealed)[0] == 0
    assert kedge("classify", sealed, *photos, "--top", 1) == (0, out, "")
    classifier = Classifier.open(sealed)
    assert [each.name for each in classifier.contract.labels] == ["cat", "dog", "bird"]
    interpreter = litert.Interpreter(str(stock.folder / f"{name}.tflite"))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    for photo in photos:
        image = pil.open(photo).convert("RGB")
        pixels = np.asarray(ImageOps.fit(image, (SIDE, SIDE), pil.Resampling.LANCZOS))
        fed = pixels if name == "model" else (pixels.astype(np.float32) / 127.5) - 1
        interpreter.set_tensor(taken["index"], fed[None].astype(taken["dtype"]))
        interpreter.invoke()
        answer = interpreter.get_tensor(given["index"]).reshape(-1).astype(np.float32)
        expected = answer / 256 if name == "model" else answer
        np.testing.assert_allclose(classifier.outputs(photo), expected, atol=0.02)


def _bytes_tflite(path: Path) -> None:
    """Write a model that casts bytes itself: such an input has no scale."""
    from kedge_convert.toolkit import require
    from kedge_runtime.output import quiet

    with quiet():
        keras = require("keras")
        picture = keras.Input((SIDE, SIDE, 3), batch_size=1, dtype="uint8")
        scaled = keras.layers.Rescaling(1 / 255)(picture)
        model = keras.Model(picture, _model(keras)(scaled))
        path.write_bytes(
            require("tensorflow").lite.TFLiteConverter.from_keras_model(model).convert()
        )


def _bytes_onnx(path: Path) -> None:
    """Write the softmax of the channels' means, of bytes."""
    onnx = pytest.importorskip("onnx")
    make, bytes_, floats = onnx.helper, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    nodes = [
        make.make_node("Cast", ["picture"], ["cast"], to=floats),
        make.make_node("ReduceMean", ["cast"], ["means"], axes=[1, 2], keepdims=0),
        make.make_node("Mul", ["means", "scale"], ["logits"]),
        make.make_node("Softmax", ["logits"], ["answer"]),
    ]
    ends = (
        [make.make_tensor_value_info("picture", bytes_, [1, SIDE, SIDE, 3])],
        [make.make_tensor_value_info("answer", floats, [1, 3])],
    )
    scale = make.make_tensor("scale", floats, [], [0.05])
    graph = make.make_graph(nodes, "bytes", *ends, [scale])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8), path)


@pytest.mark.parametrize("make", [_bytes_tflite, _bytes_onnx], ids=["tflite", "onnx"])
def test_a_model_that_casts_bytes_itself_gets_them(
    make: Callable[[Path], None], pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    from kedge_convert.toolkit import require

    make(path := tmp_path / f"bytes.{'onnx' if make is _bytes_onnx else 'tflite'}")
    (tmp_path / "labels.txt").write_text(LABELS)
    words = ("--labels", tmp_path / "labels.txt", "--preprocess", "load_img")
    code, out, err = kedge("seal", path, *words, "--in-place")
    assert (code, err) == (0, "")
    assert "bytes as they are: uint8 input" in out
    assert kedge("verify", path)[0] == 0
    photo = sorted(pictures.iterdir())[0]
    fed = np.asarray(require("keras").utils.load_img(photo, target_size=(SIDE, SIDE)), np.uint8)
    found = Classifier.open(path).probabilities(photo)
    np.testing.assert_allclose(found, raw(path, fed[None]), atol=1e-5)


def test_bytes_without_a_scale_are_normalised_by_the_model_alone(
    tmp_path: Path, kedge: Run
) -> None:
    _bytes_onnx(path := tmp_path / "bytes.onnx")
    (tmp_path / "labels.txt").write_text(LABELS)
    words = ("--labels", tmp_path / "labels.txt", "--preprocess", "load_img", "--normalisation")
    code, _, err = kedge("seal", path, *words, "unit")
    assert (code, err.count("\n")) == (2, 1)
    assert "uint8 without a scale, and normalises them itself: give --normalisation raw" in err
    assert kedge("seal", path, *words, "raw")[0] == 0
