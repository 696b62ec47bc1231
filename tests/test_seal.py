"""`kedge seal`: foreign files become artefacts, by what people say and they themselves tell."""

import hashlib
import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import MODELS, Run
from kedge_runtime import containers
from kedge_runtime.artefact import is_sealed, read_artefact
from kedge_runtime.classifier import Classifier
from kedge_runtime.foreign_words import ForeignWords
from kedge_runtime.preprocessing import preprocess
from kedge_runtime.zips import MAX_BYTES

litert = pytest.importorskip("ai_edge_litert.interpreter")
onnxruntime = pytest.importorskip("onnxruntime")

NAMES = "red\ngreen\nblue\ndark\n"
# What the tiny models need to be told.
WORDS = ("--preprocess", "image_dataset", "--normalisation", "tf", "--head", "logits")
SIDES = {"tflite": 16, "onnx": 8}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text(NAMES)
    return path


@pytest.fixture
def foreign(tmp_path: Path, form: str, models: dict[str, bytes]) -> Path:
    path = tmp_path / f"foreign.{form}"
    path.write_bytes(models[form])
    return path


@pytest.fixture
def sealed(foreign: Path, labels: Path, kedge: Run) -> Path:
    """Return a tiny model that `kedge seal` sealed."""
    code, _, err = kedge("seal", foreign, "--labels", labels, *WORDS)
    assert (code, err) == (0, "")
    return foreign.with_name(f"foreign.sealed{foreign.suffix}")


def _raw(path: Path, tensor: np.ndarray) -> np.ndarray:
    """Return what the libraries themselves give, as real numbers."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path))
        (name,) = (each.name for each in session.get_inputs())
        return np.asarray(session.run(None, {name: tensor})[0]).reshape(-1)
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    if scale := taken["quantization"][0]:
        limits = np.iinfo(taken["dtype"])
        steps = np.rint(tensor / scale) + taken["quantization"][1]
        tensor = steps.clip(limits.min, limits.max).astype(taken["dtype"])
    interpreter.set_tensor(taken["index"], tensor)
    interpreter.invoke()
    values = interpreter.get_tensor(given["index"]).astype(np.float32).reshape(-1)
    scale, zero = given["quantization"]
    return np.asarray((values - zero) * scale if scale else values)


def test_a_sealed_foreign_file_is_verified_and_answers_as_its_engine(
    sealed: Path, foreign: Path, form: str, kedge: Run
) -> None:
    code, out, _ = kedge("verify", sealed)
    assert code == 0, out
    image = np.random.default_rng(5).integers(0, 256, (SIDES[form], SIDES[form], 3), np.uint8)
    values = (image / np.float32(127.5) - np.float32(1))[None].astype(np.float32)
    for path in (foreign, sealed):  # whoever else loads the sealed file has the same model
        expected = _raw(path, values)
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
    assert containers.split(form, sealed.read_bytes()) == (
        content,
        {"labels.txt": NAMES.encode()} if form == "tflite" else {},
    )


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
    broken = {"onnx": _doubled, "tflite": _shifted}[form](model)
    members = {
        "kedge/contract.json": artefact.contract.to_json().encode(),
        "kedge/golden.npz": artefact.golden.to_bytes(),
    }
    sealed.write_bytes(containers.append(form, broken, members))
    code, out, _ = kedge("verify", sealed)
    assert code == 1
    assert "the fault lies in `engine`" in out


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
    "head": (("--head", "softmax"), "probabilities are 0 to 1: say --head logits"),
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
    code, _, err = kedge("seal", foreign, "--labels", labels, *WORDS, *places)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not foreign.with_name(f"foreign.sealed{foreign.suffix}").exists()


def test_labels_of_any_characters_stay_one_a_line(
    foreign: Path, labels: Path, form: str, kedge: Run
) -> None:
    """Unicode has more line ends than a text file."""
    names = ["a\u2028b", "c\x0bd", "crane", "crane"]
    labels.write_text("\n".join(names) + "\n", newline="")
    code, _, err = kedge("seal", foreign, "--labels", labels, *WORDS)
    assert (code, err) == (0, "")
    path = foreign.with_name(f"foreign.sealed{foreign.suffix}")
    found = read_artefact(path).contract.labels
    assert [label.name for label in found] == names
    assert len({label.id for label in found}) == 4
    if form == "tflite":
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode().splitlines() == ["a b", "c d", *names[2:]]


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
        assert "--normalisation unit: every artefact carries its own contract" in err


def test_a_contract_and_words_are_too_much(foreign: Path, pictures: Path, kedge: Run) -> None:
    words = ("--contract", "facts.json", "--preprocess", "load_img")
    code, _, err = kedge("classify", foreign, pictures, *words)
    assert code == 2
    assert "--contract: says what --preprocess load_img says" in err


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
    assert "it has 1001 outputs, and" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("movenet_single_pose_lightning_ptq", "a tensor of uint8 without one scale"),
        ("deeplabv3_mnv2_dm05_pascal_quant", "a tensor of int64"),
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


def test_words_have_one_spelling() -> None:
    """What is said stands in the message as a shell takes it."""
    words = ForeignWords(labels=Path("my labels.txt"), head="sigmoid", threshold=0.25)
    assert words.options() == "--labels 'my labels.txt' --head sigmoid --threshold 0.25"
    assert words.given
    assert not ForeignWords(threshold=0.25).given


# ONNX.
onnx = pytest.importorskip("onnx")


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
        (["Exp", "Div"], "softmax (its answers are within 0..1 and add up to 1)"),
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
    expected = _raw(path, grey.reshape(GREY[layout]))
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
