"""`kedge convert` on a tiny model: what it writes, what it says, and what it leaves alone."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from command_words import instead
from kedge_convert.targets import CALIBRATED, TARGETS, parse_targets
from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.image.preprocessing import Preprocessor

TF = "--preprocess imagenet --normalisation tf"

Run = Callable[..., tuple[int, str, str]]
NAMES = {target: target.file_name("tiny") for target in TARGETS}
ALL = [pytest.param(name, id=str(target)) for target, name in NAMES.items()]


class Converted(NamedTuple):
    """One conversion to every target, by the real command."""

    folder: Path
    payload: dict[str, Any]
    stderr: str


def options(tiny_model: Path, pictures: Path, out: Path, to: str = "all") -> list[str]:
    labels = tiny_model.with_name("labels.txt")
    # Fifteen pictures and random weights: integers may miss the agreement that is asked of others.
    words = (
        f"{TF} --min-agreement 0.6 --calibrate-count 25 --check-count 15 "
        f"--to {to} --labels {labels}"
    )
    return [str(tiny_model), *words.split(), "--calibrate", str(pictures), "--out", str(out)]


@pytest.fixture(scope="module")
def converted(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pictures: Path
) -> Converted:
    folder = tmp_path_factory.mktemp("converted")
    ran = in_its_own_process(options(tiny_model, pictures, folder))
    return Converted(folder, json.loads(ran.stdout), ran.stderr)


def in_its_own_process(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kedge_runtime.cli", "convert", *arguments, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran


def test_all_files_have_their_names_and_nothing_else_is_left(converted: Converted) -> None:
    assert {path.name for path in converted.folder.iterdir()} == set(NAMES.values())


def test_json_is_all_that_is_said(converted: Converted) -> None:
    assert converted.stderr == ""


def test_the_json_object_describes_every_artefact(converted: Converted) -> None:
    payload = converted.payload
    assert (payload["schema"], payload["command"]) == (1, "convert")
    assert [item["target"] for item in payload["artefacts"]] == [str(target) for target in TARGETS]
    for item in payload["artefacts"]:
        assert item["bytes"] == Path(item["path"]).stat().st_size
        assert (item["passed"], item["reasons"]) == (True, [])
        assert item["parity"]["images"] == 15
    float32 = {item["target"]: item["parity"] for item in payload["artefacts"]}
    for target in ("tflite:float32", "onnx:float32"):
        assert float32[target]["agreement"] == 1.0
        assert float32[target]["logit_max_error"] < 1e-4


@pytest.mark.parametrize("name", ALL)
def test_every_artefact_opens_and_answers(converted: Converted, pictures: Path, name: str) -> None:
    result = Classifier.open(converted.folder / name)(min(pictures.iterdir()))
    assert {answer.name for answer in result.predictions} == {"one", "two", "three", "four", "five"}
    assert sum(answer.probability for answer in result.predictions) == pytest.approx(1)


@pytest.mark.parametrize("name", ALL)
def test_the_golden_set_is_reproduced(converted: Converted, name: str) -> None:
    classifier = Classifier.open(converted.folder / name)
    golden = classifier.artefact.golden
    plan = Preprocessor(classifier.contract.input)
    assert 1 <= len(golden.images) <= 3
    for i, picture in enumerate(golden.images):
        tensor = plan.tensor(plan.read(picture))
        assert hashlib.sha256(tensor.tobytes()).digest() == golden.tensors[i].tobytes()
        np.testing.assert_array_equal(classifier.outputs(picture), golden.recorded[i])


def test_golden_references_are_the_float_originals_logits(converted: Converted) -> None:
    goldens = [read_artefact(converted.folder / name).golden for name in NAMES.values()]
    for golden in goldens:
        np.testing.assert_array_equal(golden.reference, goldens[0].reference)
    np.testing.assert_allclose(goldens[0].recorded, goldens[0].reference, atol=1e-4)
    assert len({int(row.argmax()) for row in goldens[0].reference}) == len(goldens[0].reference)


@pytest.mark.parametrize("name", ALL)
def test_the_contract_says_where_it_came_from(converted: Converted, name: str) -> None:
    contract = read_artefact(converted.folder / name).contract
    origin, precision = contract.provenance, name.split(".")[1]
    assert (origin.source, origin.card, origin.precision) == ("tiny", "", precision)
    assert origin.target == f"{name.split('.')[2]}:{precision}"
    assert origin.weights_digest.startswith("sha256:")
    assert {"tensorflow", "keras", "tf2onnx", "numpy"} <= set(origin.tools)
    assert [label.name for label in contract.labels] == ["one", "two", "three", "four", "five"]
    assert (contract.output.kind, contract.output.activation) == ("logits", "softmax")
    assert contract.input.geometry == Geometry(32, 32)
    assert contract.input.normalisation == NORMALISATIONS["tf"]


@pytest.mark.parametrize("name", ALL)
def test_only_calibrated_artefacts_name_their_calibration(converted: Converted, name: str) -> None:
    origin = read_artefact(converted.folder / name).contract.provenance
    calibrated = name.split(".")[1] in CALIBRATED
    assert origin.calibration_count == (25 if calibrated else 0)
    assert origin.calibration_digest.startswith("sha256:") == calibrated


def test_int8_tflite_is_int8_in_and_out(converted: Converted) -> None:
    contract = read_artefact(converted.folder / "tiny.int8.tflite").contract
    assert (contract.input.tensor.dtype, contract.output.tensor.dtype) == ("int8", "int8")
    assert contract.input.tensor.quantisation is not None


def test_again_gives_the_same_tflite_bytes(
    converted: Converted, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    in_its_own_process(options(tiny_model, pictures, tmp_path, "tflite:float32,tflite:int8"))
    for name in ("tiny.float32.tflite", "tiny.int8.tflite"):
        assert (tmp_path / name).read_bytes() == (converted.folder / name).read_bytes(), name


def test_the_closing_table(tiny_model: Path, pictures: Path, tmp_path: Path, kedge: Run) -> None:
    arguments = options(tiny_model, pictures, tmp_path, "tflite:float32")
    code, out, err = kedge("convert", *arguments)
    assert code == 0
    row = next(line for line in out.splitlines() if "tflite:float32" in line)
    assert "passed" in row
    assert "100.0 %" in row
    assert str(tmp_path / "tiny.float32.tflite") in out
    # Items and seconds are behind a stage's name.
    assert re.sub(r"(  \d+/\d+)?  \d+\.\d s$", ":", err, flags=re.MULTILINE).split("\n")[:-1] == [
        "load model:",
        "head: softmax, 5 classes; the device computes the softmax in float",
        "input: 32x32 rgb, pyramid, crop 87.5 %, EXIF, x / 127.5 - 1 "
        "(--preprocess imagenet --normalisation tf)",
        "read images:",
        "float model:",
        "export tflite:float32:",
        "check tflite:float32:",
        "sketch tflite:float32:",
    ]


def test_fewer_pictures_than_asked_for_are_told(
    tiny_model: Path, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    arguments = options(tiny_model, pictures, tmp_path, "tflite:float32")
    more = instead(arguments, "--check-count", 100)
    code, _, err = kedge("convert", *more)
    assert code == 0
    assert "only 25 calibration images and 15 validation images (25 and 100 requested" in err
    code, _, err = kedge("convert", *instead(more, "--calibrate-count", 200))
    assert code == 0
    assert "validation images of the usual 200 and 100: one image is" in err


def test_a_miss_is_set_aside_and_the_users_good_file_stays(
    tiny_model: Path, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    good = tmp_path / "tiny.int8.tflite"
    good.write_bytes(b"the user's own")
    strict = ["--max-logit-error", 0]
    arguments = options(tiny_model, pictures, tmp_path, "tflite:int8")
    code, out, _ = kedge("convert", *arguments, *strict)
    assert code == 1
    assert good.read_bytes() == b"the user's own"
    assert {path.name for path in tmp_path.iterdir()} == {good.name, f"{good.name}.rejected"}
    assert "rejected: logit error" in out


def test_one_miss_among_others_fails_the_run_but_only_its_own_file(
    tiny_model: Path, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    arguments = options(tiny_model, pictures, tmp_path, "tflite:float32,tflite:int8")
    code, out, err = kedge("convert", *arguments, "--max-logit-error", 1e-4, "--json")
    assert (code, err) == (1, "")
    assert [item["passed"] for item in json.loads(out)["artefacts"]] == [True, False]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tiny.float32.tflite", "tiny.int8.tflite.rejected"}


def test_preprocess_keras_is_load_img(
    tiny_model: Path, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    import keras

    arguments = options(tiny_model, pictures, tmp_path, "tflite:float32")
    code, _, _ = kedge("convert", *instead(arguments, "--preprocess", "load_img"))
    assert code == 0
    contract = read_artefact(tmp_path / "tiny.float32.tflite").contract
    geometry = contract.input.geometry
    assert (geometry.resize, geometry.fit, geometry.orientation) == ("nearest", "stretch", "ignore")
    plan = Preprocessor(contract.input)
    for path in sorted(pictures.iterdir())[:5]:
        image = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(32, 32)))
        expected = keras.applications.mobilenet_v2.preprocess_input(image[None])
        np.testing.assert_array_equal(plan.tensor(plan.read(path)), expected)


def test_no_pictures_are_needed_without_integers(
    tiny_model: Path, tmp_path: Path, kedge: Run
) -> None:
    labels = tiny_model.with_name("labels.txt")
    words = f"{TF} --to tflite:float16 --check-count 12 --labels {labels}"
    code, _, err = kedge("convert", tiny_model, *words.split(), "--out", tmp_path)
    assert code == 0
    assert "render images" in err


def test_a_map_of_features_goes_to_both_formats(pictures: Path, tmp_path: Path, kedge: Run) -> None:
    """The route to ONNX compared its numbers with flattened ones, and failed."""
    import keras

    layers = [keras.layers.Conv2D(6, 3, strides=2), keras.layers.ReLU()]
    body = keras.Sequential([keras.Input((16, 16, 3)), *layers])
    body.save(tmp_path / "body.keras")
    words = f"{TF} --to tflite:float32,onnx:float32 --check-count 12"
    command = ["convert", tmp_path / "body.keras", *words.split(), "--calibrate", pictures]
    code, _, error = kedge(*command, "--out", tmp_path)
    assert code == 2
    assert "(None, 7, 7, 6), not one output for each image: give --head features" in error
    code, out, _ = kedge(*command, "--out", tmp_path, "--head", "features", "--json")
    assert [item["passed"] for item in json.loads(out)["artefacts"]] == [True, True], out
    for form in ("tflite", "onnx"):
        classifier = Classifier.open(tmp_path / f"body.float32.{form}")
        photo = min(pictures.iterdir())
        plan = Preprocessor(classifier.contract.input)
        expected = np.asarray(body(plan.tensor(plan.read(photo))))[0]
        np.testing.assert_allclose(classifier.features(photo), expected, atol=1e-5)
    code, out, error = kedge(
        "calibrate-check", pictures, "--model", tmp_path / "body.float32.tflite", "--json"
    )
    assert code in (0, 1), error  # it asked for a sketch, which features never have
    assert "answers" not in {each["check"] for each in json.loads(out)["findings"]}


def test_int8_without_pictures_is_refused_with_the_fix(
    tiny_model: Path, tmp_path: Path, kedge: Run
) -> None:
    code, out, err = kedge("convert", tiny_model, "--to", "tflite:int8", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "--calibrate (a folder of about 200 images like those it will see)" in err
    assert err.endswith("--calibrate photos\n")
    assert not (tmp_path / "out").exists()


def test_targets_are_those_that_the_formats_know() -> None:
    from kedge_convert.export.formats import FORMATS

    known = {f"{form}:{name}" for form, module in FORMATS.items() for name in module.PRECISIONS}
    assert {str(target) for target in parse_targets("all")} == known
