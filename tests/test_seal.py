"""`kedge seal`: foreign files become artefacts, by what people say and they themselves tell."""

import hashlib
import json
import shlex
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from command_words import instead
from conftest import Run
from foreign_files import (
    NAMES,
    WORDS,
    raw,
)
from kedge_runtime.artefact import containers
from kedge_runtime.artefact.file import is_sealed, read_artefact
from kedge_runtime.artefact.model_options import ModelOptions
from kedge_runtime.classify.classifier import Classifier

litert = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")


SIDES = {"tflite": 16, "onnx": 8}


def test_a_sealed_foreign_file_is_verified_and_answers_as_its_engine(
    sealed: Path, foreign: Path, form: str, kedge: Run
) -> None:
    code, out, _ = kedge("verify", sealed)
    assert code == 0, out
    image = np.random.default_rng(5).integers(0, 256, (SIDES[form], SIDES[form], 3), np.uint8)
    values = (image / np.float32(127.5) - np.float32(1))[None].astype(np.float32)
    for path in (foreign, sealed):  # whoever else loads the sealed file has the same model
        expected = raw(path, values)
        np.testing.assert_allclose(Classifier.open(sealed).outputs(image), expected, atol=1e-5)


def test_the_contract_says_what_was_told_and_whose_bytes_they_are(
    sealed: Path, foreign: Path, form: str
) -> None:
    artefact = read_artefact(sealed)
    contract, content = artefact.contract, foreign.read_bytes()
    assert contract.input.pipeline == "image_dataset"
    assert [label.name for label in contract.labels] == NAMES.split()
    made = contract.provenance
    assert (made.source, made.precision) == (foreign.name, "unknown")
    assert made.weights_digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert len(artefact.golden.images) > 1
    model, others = containers.split(form, sealed.read_bytes())
    assert bytes(model) == content
    assert others == ({"labels.txt": NAMES.encode()} if form == "tflite" else {})


def test_the_golden_images_hold_the_resize_and_differ(sealed: Path, form: str) -> None:
    """They are larger than the input, of other aspect ratios, and answered with other classes."""
    golden = read_artefact(sealed).golden
    shapes = [cv2.imdecode(np.frombuffer(i, np.uint8), 1).shape[:2] for i in golden.images]  # type: ignore[union-attr]
    assert all(min(shape) > SIDES[form] for shape in shapes)
    assert any(shape[0] != shape[1] for shape in shapes)
    assert len(set(golden.ids.tolist())) == len(golden.images)


def test_a_changed_weight_is_found_by_its_own_golden_set(
    sealed: Path, form: str, kedge: Run
) -> None:
    artefact = read_artefact(sealed)
    model, _ = containers.split(form, sealed.read_bytes())
    broken = {"onnx": _doubled, "tflite": _shifted}[form](bytes(model))
    members = {
        "kedge/contract.json": artefact.contract.to_json().encode(),
        "kedge/golden.npz": artefact.golden.to_bytes(),
    }
    sealed.write_bytes(containers.append(form, broken, members))
    code, out, _ = kedge("verify", sealed)
    assert code == 1
    assert "FAILED at stage `engine`" in out


def _doubled(model: bytes) -> bytes:
    weights = np.array([[4, 0, 0, -2], [0, 4, 0, -2], [0, 0, 4, -2]], np.float32)
    assert weights.tobytes() in model
    return model.replace(weights.tobytes(), weights[:, ::-1].tobytes())


def _shifted(model: bytes) -> bytes:
    """Turn the weights of the last layer round."""
    interpreter = litert.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    dense = next(
        interpreter.get_tensor(each["index"])
        for each in interpreter.get_tensor_details()
        if list(each["shape"]) == [4, 4] and each["dtype"] == np.int8
    )
    assert dense.tobytes() in model
    return model.replace(dense.tobytes(), dense[::-1].tobytes())


def test_own_images_make_the_golden_set(
    foreign: Path, labels: Path, pictures: Path, kedge: Run
) -> None:
    code, out, _ = kedge("seal", foreign, "--labels", labels, *WORDS, "--images", pictures)
    assert code == 0
    assert "golden set: " in out
    assert " of 40 images\n" in out
    code, _, _ = kedge("verify", foreign.with_name(f"foreign.sealed{foreign.suffix}"))
    assert code == 0


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Return a folder of images in the colours that the tiny ONNX model tells apart."""
    rng, colours = np.random.default_rng(3), {"red": 2, "green": 1, "blue": 0}
    for name, channel in colours.items():
        folder = tmp_path / "labelled" / name
        folder.mkdir(parents=True)
        for i in range(12):
            image = rng.integers(40, 120, (20, 24, 3), np.uint8)
            image[..., channel] += 100
            cv2.imwrite(str(folder / f"{i}.png"), image)
    return tmp_path / "labelled"


@pytest.mark.parametrize("form", ["onnx"], indirect=True)
def test_labelled_images_refuse_other_pixels(
    foreign: Path, labels: Path, labelled: Path, kedge: Run
) -> None:
    told = ("--labels", labels, *WORDS, "--images", labelled)
    code, out, err = kedge("seal", foreign, *told, "--colour", "bgr")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "x / 127.5 - 1, BGR gets 12 of 36 images right, " in err
    assert " gets 36; give --normalisation " in err
    assert "--colour rgb, or --force-input to keep it" in err
    assert not foreign.with_name("foreign.sealed.onnx").exists()
    assert kedge("seal", foreign, *told, "--colour", "bgr", "--force-input")[0] == 0
    code, _, err = kedge("seal", foreign, *told)
    assert (code, err) == (0, "")


def test_everything_missing_is_one_line_that_ends_with_the_command(
    foreign: Path, labels: Path, kedge: Run
) -> None:
    code, out, err = kedge("seal", foreign)
    assert (code, out, err.count("\n")) == (2, "", 1)
    command = err.rpartition(": ")[2]
    expected = f"kedge seal {foreign} --labels FILE --preprocess NAME --normalisation NAME"
    assert command.strip() == f"{expected} --head KIND"
    told = {"FILE": str(labels), "--preprocess NAME": "--preprocess load_img"}
    told |= {"--normalisation NAME": "--normalisation 'mean=127.5 std=127.5'", "KIND": "logits"}
    for place, value in told.items():
        command = command.replace(place, value)
    code, _, err = kedge(*shlex.split(command)[1:])
    assert (code, err) == (0, "")


def test_what_was_said_stands_in_the_command(foreign: Path, labels: Path, kedge: Run) -> None:
    given = ("--normalisation", "mean=1 std=2", "--labels", labels)
    code, _, err = kedge("seal", foreign, *given, "--out", labels.with_name(f"x{foreign.suffix}"))
    assert code == 2
    assert f"--labels {labels} --normalisation 'mean=1 std=2' --preprocess NAME" in err
    assert "--normalisation (" not in err


def test_a_seal_is_replaced_only_when_that_is_said(
    sealed: Path, foreign: Path, labels: Path, form: str, kedge: Run
) -> None:
    labels.write_text("rot\ngrün\nblau\ndunkel\n")
    call = ("seal", sealed, "--labels", labels, *WORDS)
    code, _, err = kedge(*call)
    assert code == 2
    assert "is sealed already; --reseal" in err
    code, _, err = kedge(*call, "--reseal", "--in-place")
    assert (code, err) == (0, "")
    assert [each.name for each in read_artefact(sealed).contract.labels][1] == "grün"
    assert containers.split(form, sealed.read_bytes())[0] == foreign.read_bytes()
    code, _, _ = kedge("verify", sealed)
    assert code == 0


def test_no_model_is_lost_to_a_sealed_one(foreign: Path, labels: Path, kedge: Run) -> None:
    other = foreign.with_name(f"other{foreign.suffix}")
    other.write_bytes(b"somebody's model")
    code, _, err = kedge("seal", foreign, "--labels", labels, *WORDS, "--out", other)
    assert code == 2
    assert "is there and carries no seal; choose another name" in err
    assert other.read_bytes() == b"somebody's model"
    before = foreign.read_bytes()
    code, _, _ = kedge("seal", foreign, "--labels", labels, *WORDS, "--in-place")
    assert code == 0
    assert is_sealed(foreign)
    assert foreign.read_bytes().startswith(before)


def test_json_names_what_was_written(foreign: Path, labels: Path, kedge: Run) -> None:
    code, out, _ = kedge("seal", foreign, "--labels", labels, *WORDS, "--json")
    found = json.loads(out)
    path = Path(found["artefact"])
    assert (code, found["command"], found["schema"]) == (0, "seal", 1)
    assert found["digest"] == read_artefact(path).digest
    assert found["bytes"] == path.stat().st_size
    assert found["notes"][0].endswith("x / 127.5 - 1 (--preprocess image_dataset)")


WRONG = {
    "too few labels": (("--labels", "three.txt"), "it has 4 outputs, and "),
    "no labels": (("--labels", "none.txt"), "can't read the label file"),
    "head": (("--head", "softmax"), "probabilities are 0 to 1: give --head logits"),
    "threshold": (("--threshold", ".3"), "--threshold: is for sigmoid outputs"),
    "colour": (("--colour", "grey"), "--colour grey: the model takes 3 channels"),
    "suffix": (("--out", "x.bin"), "its name must end in"),
    "images": (("--images", "nowhere"), "--images: "),
    "both places": (("--out", "x.tflite", "--in-place"), "--in-place: --out names another"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(foreign: Path, labels: Path, kedge: Run, case: str) -> None:
    words, said = WRONG[case]
    (labels.parent / "three.txt").write_text("red\ngreen\nblue\n")
    places = [labels.parent / word if word.endswith(".txt") else word for word in words]
    arguments: list[object] = [foreign, "--labels", labels, *WORDS]
    if len(places) == 2:
        arguments = instead(arguments, str(places[0]), places[1])
    else:
        arguments += places
    code, _, err = kedge("seal", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not foreign.with_name(f"foreign.sealed{foreign.suffix}").exists()


def test_labels_of_any_language_stay_one_a_line(
    foreign: Path, labels: Path, form: str, kedge: Run
) -> None:
    names = ["M\u00fcller b", "\u732b d", "crane", "crane"]
    labels.write_text("\n".join(names) + "\n", newline="", encoding="utf-8")
    code, _, err = kedge("seal", foreign, "--labels", labels, *WORDS)
    assert (code, err) == (0, "")
    path = foreign.with_name(f"foreign.sealed{foreign.suffix}")
    found = read_artefact(path).contract.labels
    assert [label.name for label in found] == names
    assert len({label.id for label in found}) == 4
    if form == "tflite":
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode().splitlines() == names


@pytest.mark.parametrize("name", ["a\u2028b", "c\x0bd", "e\x1b[31m", "f\tg\th", "i\u202ej"])
def test_labels_with_control_characters_are_not_sealed(
    foreign: Path, labels: Path, kedge: Run, name: str
) -> None:
    """Unicode has more line ends than a text file, and a terminal obeys others."""
    labels.write_text(f"red\n{name}\nblue\ndark\n", newline="", encoding="utf-8")
    code, out, err = kedge("seal", foreign, "--labels", labels, *WORDS)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{labels}:2: label " in err
    assert not foreign.with_name(f"foreign.sealed{foreign.suffix}").exists()


def test_words_have_one_spelling() -> None:
    """What is said stands in the message as a shell takes it."""
    words = ModelOptions(labels=Path("my labels.txt"), head="sigmoid", threshold=0.25)
    assert words.options() == "--labels 'my labels.txt' --head sigmoid --threshold 0.25"
    assert words.given
    assert not ModelOptions(threshold=0.25).given
