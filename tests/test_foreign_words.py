"""Foreign files by words: classified and timed without a seal, in zips, and public ones."""

import json
import shlex
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import Run
from foreign_files import (
    NAMES,
    WORDS,
)
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.image.preprocessing import preprocess
from kedge_runtime.modelfile.stored import MAX_BYTES

litert = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")


# Classifying by words, without a seal.
def test_words_classify_as_the_sealed_file(
    sealed: Path, foreign: Path, labels: Path, pictures: Path, kedge: Run
) -> None:
    code, out, err = kedge("classify", foreign, pictures, "--labels", labels, *WORDS, "--top", 1)
    assert code == 0
    assert err.splitlines()[0].startswith("kedge: input: ")
    assert (0, out, "") == kedge("classify", sealed, pictures, "--top", 1)


def test_a_sealed_file_keeps_its_contract(sealed: Path, pictures: Path, kedge: Run) -> None:
    for command in ("classify", "bench"):
        code, _, err = kedge(command, sealed, pictures, "--normalisation", "unit")
        assert (code, err.count("\n")) == (2, 1)
        assert "--normalisation unit: every artefact has its own contract" in err


def test_a_contract_and_words_are_too_much(foreign: Path, pictures: Path, kedge: Run) -> None:
    words = ("--contract", "facts.json", "--preprocess", "load_img")
    code, _, err = kedge("classify", foreign, pictures, *words)
    assert code == 2
    assert "--contract: replaces --preprocess load_img" in err


def test_a_missing_word_names_the_command(foreign: Path, pictures: Path, kedge: Run) -> None:
    code, _, err = kedge("classify", foreign, pictures, *WORDS)
    assert code == 2
    assert err.endswith(f"kedge classify {foreign} IMAGE {shlex.join(WORDS)} --labels FILE\n")


def test_who_says_nothing_is_asked_for_everything(
    foreign: Path, sealed: Path, pictures: Path, kedge: Run
) -> None:
    """The file may be foreign, or a sealed one that lost its end."""
    cut = foreign.with_name(f"cut{foreign.suffix}")
    cut.write_bytes(sealed.read_bytes()[:-5])
    for path in (foreign, cut):
        code, _, err = kedge("classify", path, pictures)
        assert (code, err.count("\n")) == (2, 1)
        assert "carries no kedge seal: cut short (copy it again), or" in err
    code, _, err = kedge("classify", foreign, pictures)
    words = "--labels FILE --preprocess NAME --normalisation NAME --head KIND"
    assert err.endswith(f"kedge classify {foreign} IMAGE {words}\n")


def test_features_need_no_labels(foreign: Path, pictures: Path, tmp_path: Path, kedge: Run) -> None:
    code, _, err = kedge("seal", foreign, *WORDS[:4], "--head", "features")
    assert (code, err) == (0, "")
    path = foreign.with_name(f"foreign.sealed{foreign.suffix}")
    assert kedge("verify", path)[0] == 0
    assert kedge("classify", path, pictures, "--save-features", tmp_path / "x.npz")[0] == 0
    with np.load(tmp_path / "x.npz") as saved:
        assert saved["features"].shape == (40, 4)
    code, _, err = kedge(
        "seal", foreign, *WORDS[:4], "--head", "features", "--labels", tmp_path / "labels.txt"
    )
    assert code == 2
    assert "--labels: features have no names" in err


def test_words_are_timed(foreign: Path, labels: Path, pictures: Path, kedge: Run) -> None:
    words = ("--labels", labels, *WORDS, "--rounds", 2, "--warm-up", 0, "--json")
    code, out, _ = kedge("bench", foreign, pictures / sorted(pictures.iterdir())[0].name, *words)
    assert code == 0
    assert json.loads(out)["cases"][0]["precision"] == "unknown"


# Zips.
def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_zip_brings_its_labels(tmp_path: Path, models: dict[str, bytes], kedge: Run) -> None:
    """A name that leads out of the folder leads nowhere."""
    path = _zip(
        tmp_path / "export.zip",
        {
            "../../evil.tflite": models["tflite"],
            "__MACOSX/._evil.tflite": b"shadow",
            "labels.txt": b"0 red\r\n1 green\r\n2 blue\r\n3 dark\r\n",
        },
    )
    code, out, err = kedge("seal", path, *WORDS)
    assert (code, err) == (0, "")
    assert "labels: 4 (the zip)" in out
    contract = read_artefact(tmp_path / "export.sealed.tflite").contract
    assert [label.name for label in contract.labels] == NAMES.split()
    assert sorted(each.name for each in tmp_path.parent.rglob("*evil*")) == []
    assert contract.provenance.source == "export.zip"


BAD_ZIPS: dict[str, tuple[dict[str, bytes], str]] = {
    "a bomb": ({"model.tflite": bytes(MAX_BYTES + 1)}, "allowed are"),
    "no model": ({"labels.txt": b"0 a\n"}, "a zip holds one .tflite or .onnx file"),
    "two models": ({"a.tflite": b"a", "b.onnx": b"b"}, "this one holds a.tflite, b.onnx"),
    "no text": ({"model.tflite": b"a", "labels.txt": b"\xff"}, "labels.txt: isn't UTF-8"),
    "no labels in it": ({"model.tflite": b"a", "labels.txt": b""}, "labels.txt is empty"),
    "no network": ({"model.tflite": b"TFL3"}, "model"),
}


@pytest.mark.parametrize("case", BAD_ZIPS)
@pytest.mark.parametrize("command", ["seal", "classify"])
def test_a_bad_zip_is_one_line(
    tmp_path: Path, pictures: Path, kedge: Run, case: str, command: str
) -> None:
    members, said = BAD_ZIPS[case]
    path = _zip(tmp_path / "bad.zip", members)
    images = () if command == "seal" else (pictures,)
    code, _, err = kedge(command, path, *images, *WORDS)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_what_is_no_zip_is_one_line(tmp_path: Path, kedge: Run) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    for name in ("x.zip", "none.zip"):
        code, _, err = kedge("seal", tmp_path / name, *WORDS)
        assert (code, err.count("\n")) == (2, 1)


# Public files.
PUBLIC = {
    "mobilenet_v1_0.25_128_quant": 128,
    "mobilenet_v1_0.5_160_quant": 160,
    "tf2_mobilenet_v2_1.0_224_ptq": 224,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_classifier_needs_only_its_geometry(
    shared: Path, tmp_path: Path, name: str, kedge: Run
) -> None:
    """Its bytes go in as they are, its metadata names the classes, its last operator the kind."""
    folder, path = shared / "data" / "edgetpu", tmp_path / "x.tflite"
    call = ("seal", folder / f"{name}.tflite", "--preprocess", "image_dataset", "--out", path)
    code, out, err = kedge(*call)
    assert (code, err) == (0, "")
    assert "bytes as they are: uint8 input" in out
    assert "softmax (its last operator)" in out
    assert kedge("verify", path)[0] == 0
    classifier, side = Classifier.open(path), PUBLIC[name]
    image = cv2.cvtColor(cv2.imread(str(folder / "cat.bmp")), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR_EXACT)
    tensor = preprocess(classifier.contract, small.astype(np.uint8))
    assert np.array_equal(tensor[0], small)
    interpreter = litert.Interpreter(str(folder / f"{name}.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    interpreter.invoke()
    raw = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).reshape(-1)
    found = classifier.outputs(small.astype(np.uint8))
    np.testing.assert_allclose(found, raw.astype(np.float32) / 256, atol=1e-6)
    assert "cat" in classifier(small.astype(np.uint8)).best.name


def test_the_background_of_1001_outputs_has_no_label(
    shared: Path, tmp_path: Path, kedge: Run
) -> None:
    folder, labels, path = shared / "data" / "edgetpu", tmp_path / "l.txt", tmp_path / "x.tflite"
    names = (folder / "imagenet_labels.txt").read_text().splitlines()[1:]
    labels.write_text("\n".join(names))
    model = folder / "mobilenet_v1_0.25_128_quant.tflite"
    words = ("--labels", labels, "--preprocess", "imagenet", "--out", path)
    code, out, _ = kedge("seal", model, *words)
    assert code == 0
    assert "output 0 is the background" in out
    best = Classifier.open(path)(folder / "cat.bmp").best
    assert "cat" in best.name
    assert names[best.index] == best.name
    labels.write_text("\n".join(names[1:]))
    code, _, err = kedge("seal", model, *words)
    assert code == 2
    assert "it has 1 001 outputs, and" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("movenet_single_pose_lightning_ptq", "its output is 1x1x17x3, no scores of classes"),
        ("deeplabv3_mnv2_dm05_pascal_quant", "an input or output of int64"),
        ("mobilenet_v1_0.25_128_quant_edgetpu", "compiled for the Edge TPU"),
    ],
)
def test_what_is_no_classifier_here_is_one_line(
    shared: Path, tmp_path: Path, name: str, said: str, kedge: Run
) -> None:
    model = shared / "data" / "edgetpu" / f"{name}.tflite"
    code, _, err = kedge("seal", model, *WORDS, "--out", tmp_path / "x.tflite")
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
