"""Files as people have them answer as in their own framework, on the pixels that it loaded.

`make_model_files.py` made the files of `models/people/` with TensorFlow 2.12, 2.15 and tf_keras.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import people_images
from conftest import Run
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import probabilities
from kedge_runtime.image.input_options import InputOptions
from people_files import Described, read_all
from people_pixels import Floats

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

PEOPLE = Path(__file__).parent / "models" / "people"
FILES = {each.name: each for each in read_all(PEOPLE)}
EXACT = 1e-4  # the largest difference in probability of the same float program
# kedge resizes to whole bytes, tf.image.resize doesn't: .004 at most on these nets, measured.
ROUNDED = 5e-3
# A grey one and one of several outputs; tests/test_tutorials.py has the tutorials, and
# benchmarks/model_files.py all of them.
WHOLE = ("digits_flattened-tf2.12-h5", "two_outputs-tf2.12-h5")


def asked(described: Described) -> SourceRequest:
    """Return what its owner would say of a file."""
    options = described.options(PEOPLE)
    words = {field.name for field in fields(InputOptions)} & options.keys()
    pixels = InputOptions(**{name: options.pop(name) for name in words})
    return SourceRequest(described.file_in(PEOPLE), pixels=pixels, **options)


@pytest.mark.parametrize("name", FILES)
def test_the_float_model_answers_as_its_own_framework_did(name: str) -> None:
    described = FILES[name]
    source = load_source(asked(described))
    fed = described.tensors(PEOPLE)
    height, width = source.input.geometry.height, source.input.geometry.width
    tensors = iter(fed.reshape(len(fed), 1, height, width, -1))
    answers = probabilities(source.logits(tensors), source.output)
    limit = EXACT if described.is_exact else described.limit
    np.testing.assert_allclose(answers, described.answers(PEOPLE), atol=limit, rtol=0)


@pytest.mark.parametrize("name", FILES)
def test_the_stored_answers_can_fail(name: str) -> None:
    """Answers that hardly vary would agree with any model's."""
    answers = FILES[name].answers(PEOPLE)
    assert len(answers) == len(FILES[name].images) == len(FILES[name].tensors(PEOPLE))
    assert np.ptp(answers, axis=0).max() > 0.1
    assert answers.max(axis=-1).mean() < 0.98


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people_images.write(tmp_path_factory.mktemp("people") / "images")


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_way(name: str, images: Path, tmp_path: Path, kedge: Run) -> None:
    described, targets = FILES[name], ("tflite:float32", "tflite:int8", "onnx:float32")
    told = described.arguments(PEOPLE)
    wanted = ("--to", ",".join(targets), "--calibrate", images, "--out", tmp_path, "--json")
    code, out, err = kedge("convert", *told, *wanted)
    assert code == 0, err
    for artefact in json.loads(out)["artefacts"]:
        if artefact["precision"] == "float32":
            _check(described, artefact, images)


def _check(described: Described, artefact: dict[str, Any], images: Path) -> None:
    """On the user's own pixels: JPEG decoders differ by more than models, so PNG files decide."""
    classifier = Classifier.open(artefact["path"])
    given: list[Floats] = [classifier.probabilities(images / each) for each in described.images]
    expected = described.answers(PEOPLE)
    exact = [each.endswith(".png") for each in described.images]
    assert sum(exact) > 3
    limit = max(described.limit, ROUNDED)
    np.testing.assert_allclose(np.array(given)[exact], expected[exact], atol=limit, rtol=0)
    assert (np.argmax(given, -1) == np.argmax(expected, -1)).mean() > 0.8
