"""Quantisation-aware models: their ranges and integers reach the int8 file.

`make_graph_models.py` made them with TensorFlow's model optimisation, whose own answers, and whose
TFLite file's scales and integers, lie beside them.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.export.formats import FORMATS
from kedge_convert.load import fake_quant
from kedge_convert.load.graph_layer import FAKE_QUANT
from kedge_convert.load.registry import load
from kedge_convert.load.request import SourceRequest
from kedge_convert.load.tfmot_qat import stand_ins
from kedge_convert.source import Source, load_source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.image.input_options import InputOptions

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

GRAPHS = Path(__file__).parent / "models" / "graphs"
EXPECTED = dict(np.load(GRAPHS / "answers.npz"))
PICTURES = EXPECTED["pictures"]
NAMES = ("mobile", "plain", "binary")
# Activation ranges and kernels, counted in tfmot's graph.
COUNTS = {"mobile": (7, 4), "plain": (3, 2), "binary": (3, 2)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    for name in NAMES:
        with zipfile.ZipFile(GRAPHS / f"aware_{name}.zip") as archive:
            archive.extractall(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_stand_ins_give_the_answers_of_tfmot(files: Path, name: str, suffix: str) -> None:
    models = require("tf_keras").models
    path = files / f"aware_{name}{suffix}"
    model = models.load_model(path, custom_objects=stand_ins(), compile=False)
    answers = model.predict_on_batch(PICTURES)
    np.testing.assert_allclose(answers, EXPECTED[f"aware_{name}"], atol=1e-5)
    assert np.ptp(answers, axis=0).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_keeps_both_its_models(files: Path, name: str) -> None:
    found = load(SourceRequest(str(files / f"aware_{name}")))
    trained = fake_quant.trained(found.model)
    np.testing.assert_allclose(trained(PICTURES), EXPECTED[f"aware_{name}"], atol=1e-5)
    (layer,) = [each for each in found.model.layers if hasattr(each, "graph")]
    assert not [node for node in layer.graph.definition.node if node.op in FAKE_QUANT]
    ranges, kernels = COUNTS[name]
    assert found.notes == (
        f"quantisation-aware: {ranges} activation ranges and {kernels} rounded kernels; "
        "tflite:int8 keeps both, all other targets the rounded kernels only",
    )


def source(files: Path, name: str) -> Source:
    classes = "no\nyes\n" if name == "binary" else "a\nb\nc\nd\ne\n"
    (files / "labels").write_text(classes)
    path, labels = str(files / f"aware_{name}"), str(files / "labels")
    return load_source(SourceRequest(path, pixels=InputOptions("imagenet", "tf"), labels=labels))


def answers(content: bytes) -> tuple[Floats, Any]:
    """Return what a TFLite file of integers answers to PICTURES, and its interpreter."""
    interpreter = require("ai_edge_litert.interpreter").Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for picture in PICTURES:
        scale, zero = taken["quantization"]
        steps = np.clip(np.round(picture[None] / scale) + zero, -128, 127)
        interpreter.set_tensor(taken["index"], steps.astype(np.int8))
        interpreter.invoke()
        scale, zero = given["quantization"]
        row = interpreter.get_tensor(given["index"])[0].astype(np.float32)
        rows.append((row - zero) * scale)
    return np.stack(rows), interpreter


@pytest.mark.parametrize("name", NAMES)
def test_the_int8_file_has_the_ranges_and_integers_of_training(files: Path, name: str) -> None:
    one = source(files, name)
    # No calibration pictures: the ranges are those of training.
    exported = FORMATS["tflite"].export(one, "int8")
    assert exported.notes == ()
    found, interpreter = answers(exported.content)
    details = interpreter.get_tensor_details()
    assert {each["dtype"] for each in details} <= {np.int8, np.int32}
    learned = EXPECTED[f"{name}_scales"]
    output = interpreter.get_output_details()[0]["quantization"][0]
    inner = [
        each["quantization"][0]
        for each in details
        if each["dtype"] == np.int8 and len(each["quantization_parameters"]["scales"]) == 1
    ]
    # The two logits of one sigmoid are kedge's own.
    own = 2 if name == "binary" else 0
    strange = [one for one in inner if not np.isclose(learned, one, rtol=1e-5).any()]
    assert len(strange) <= own
    np.testing.assert_allclose(found, fake_quant.trained(one.model)(PICTURES), atol=1.01 * output)
    ours = list(constants(interpreter))
    kernels = [each for key, each in EXPECTED.items() if key.startswith(f"{name}_kernel")]
    assert len(kernels) == COUNTS[name][1]
    for kernel in kernels:
        assert any(np.array_equal(kernel, each) for each in ours)


def constants(interpreter: Any) -> Iterator[Any]:
    """Yield the int8 tensors that a file holds."""
    made = {index for each in interpreter._get_ops_details() for index in each["outputs"]}
    made |= {each["index"] for each in interpreter.get_input_details()}
    for each in interpreter.get_tensor_details():
        if each["dtype"] == np.int8 and each["index"] not in made:
            yield interpreter.get_tensor(each["index"])


@pytest.mark.parametrize("name", NAMES)
def test_float_files_have_the_rounded_kernels(files: Path, name: str) -> None:
    one = source(files, name)
    logits = one.logits(picture[None] for picture in PICTURES)
    content = FORMATS["tflite"].export(one, "float32").content
    interpreter = require("ai_edge_litert.interpreter").Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    for picture, row in zip(PICTURES, logits, strict=True):
        interpreter.set_tensor(taken["index"], picture[None])
        interpreter.invoke()
        np.testing.assert_allclose(interpreter.get_tensor(given["index"])[0], row, atol=1e-4)
    kernel = max((weight.numpy() for weight in one.model.weights), key=lambda each: each.ndim)
    steps = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    np.testing.assert_allclose(kernel / steps, np.round(kernel / steps), atol=1e-3)
