"""Files that kedge didn't make: a person says a few facts, the engine the rest, nobody guesses."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import Run, tiny_contract
from kedge_runtime.artefact.contract import (
    Contract,
    Geometry,
    Input,
    Label,
    Normalisation,
    Output,
    Tensor,
)
from kedge_runtime.artefact.file import is_sealed
from kedge_runtime.artefact.foreign import read_contract
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.errors import ArtefactError, ContractError, EngineError
from kedge_runtime.image.preprocessing import preprocess

pytest.importorskip("ai_edge_litert")

FACTS: dict[str, Any] = {
    "schema": 1,
    "input": {
        "geometry": {"height": 16, "width": 16, "fit": "stretch"},
        "normalisation": {"divisor": 127.5, "mean": [1, 1, 1]},
    },
    "output": {"kind": "logits"},
    "labels": "names.txt",
}
RED = np.full((20, 20, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """Return a contract with the few facts that a foreign file lacks, its labels beside it."""
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\ndark\n")
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(FACTS))
    return path


@pytest.fixture
def foreign(tmp_path: Path, models: dict[str, bytes]) -> Path:
    path = tmp_path / "foreign.tflite"
    path.write_bytes(models["tflite"])
    return path


def test_a_few_facts_make_a_foreign_file_usable(
    facts: Path, foreign: Path, artefacts: Path
) -> None:
    classifier = Classifier.open(foreign, threads=1, contract=read_contract(facts))
    sealed = Classifier.open(artefacts / "tiny.tflite", threads=1)
    assert classifier.contract.input == sealed.contract.input
    assert classifier.contract.output == sealed.contract.output
    assert classifier(RED).best.name == "red"
    np.testing.assert_array_equal(classifier.probabilities(RED), sealed.probabilities(RED))


def test_without_labels_the_classes_are_numbered(facts: Path, foreign: Path) -> None:
    contract = replace(read_contract(facts), labels=())
    best = Classifier.open(foreign, contract=contract)(RED).best
    assert (best.index, best.id, best.name) == (0, "0", "class 0")


def test_a_byte_order_mark_is_no_part_of_the_first_word(facts: Path) -> None:
    first = read_contract(facts).labels[0]
    for path in (facts, facts.parent / FACTS["labels"]):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_contract(facts).labels[0] == first


NUMBERED = {
    "Teachable Machine's": ("0 red\n1 green\n2 blue\n3 dark\n", ["red", "green", "blue", "dark"]),
    "with colons": ("0: red\n1: green\n2: blue\n3: dark", ["red", "green", "blue", "dark"]),
    "numbers that are names": (
        "7 up\n8 ball\n9 pin\n10 pin\n",
        ["7 up", "8 ball", "9 pin", "10 pin"],
    ),
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_numbers_before_the_names_are_left_out(facts: Path, foreign: Path, kind: str) -> None:
    """As kedge convert --labels reads them."""
    text, names = NUMBERED[kind]
    facts.with_name(FACTS["labels"]).write_text(text)
    assert [(label.id, label.name) for label in read_contract(facts).labels] == [
        (name, name) for name in names
    ]
    classifier = Classifier.open(foreign, threads=1, contract=read_contract(facts))
    assert classifier(RED).best.name == names[0]


def test_labels_may_be_written_out(facts: Path) -> None:
    labels = [{"id": str(i), "name": f"n{i}"} for i in range(4)]
    facts.write_text(json.dumps({**FACTS, "labels": labels}))
    assert read_contract(facts).labels[3] == Label("3", "n3")


def test_a_tensor_that_is_stated_must_be_the_engines(facts: Path, foreign: Path) -> None:
    contract = read_contract(facts)
    wrong = replace(contract, input=replace(contract.input, tensor=Tensor("float16")))
    with pytest.raises(EngineError, match=r"input is .*; correct the contract"):
        Classifier.open(foreign, contract=wrong)


def test_labels_that_are_too_few_are_refused(facts: Path, foreign: Path) -> None:
    contract = read_contract(facts)
    with pytest.raises(EngineError, match="number of classes is 4, its contract says 3; correct"):
        Classifier.open(foreign, contract=replace(contract, labels=contract.labels[1:]))


def test_a_sealed_file_keeps_its_own_contract(facts: Path, artefacts: Path) -> None:
    with pytest.raises(ArtefactError, match="carries its own contract"):
        Classifier.open(artefacts / "tiny.tflite", contract=read_contract(facts))


def test_without_a_contract_a_foreign_file_is_refused(foreign: Path) -> None:
    with pytest.raises(ArtefactError, match=r"no kedge seal.*classify and bench take --contract"):
        Classifier.open(foreign)


def test_a_seal_is_seen_by_the_end_of_the_file(
    foreign: Path, artefacts: Path, tmp_path: Path
) -> None:
    assert is_sealed(artefacts / "tiny.onnx")
    assert not is_sealed(foreign)
    (tmp_path / "short.onnx").write_bytes(b"short")
    assert not is_sealed(tmp_path / "short.onnx")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no geometry": ({"input": {"normalisation": {}}}, "the key 'geometry' is missing"),
    "no normalisation": (
        {"input": {"geometry": FACTS["input"]["geometry"]}},
        "the key 'normalisation' is missing",
    ),
    "an unknown key": ({"scale": 3}, "unknown key 'scale'"),
    "another schema": ({"schema": 4}, "schema 4"),
    "no label file": ({"labels": "absent.txt"}, "absent.txt: no such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_in_the_facts_is_named_in_one_line(facts: Path, case: str) -> None:
    change, message = WRONG[case]
    facts.write_text(json.dumps({**FACTS, **change}))
    with pytest.raises(ContractError, match=message) as caught:
        read_contract(facts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]"])
def test_what_is_no_contract_is_refused_with_its_name(facts: Path, content: bytes) -> None:
    facts.write_bytes(content)
    with pytest.raises(ContractError, match=r"facts\.json: "):
        read_contract(facts)


def test_a_missing_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.json: no such file"):
        read_contract(tmp_path / "none.json")


SPOKEN = replace(
    tiny_contract("tflite"),
    input=replace(tiny_contract("tflite").input, normalisation=Normalisation("rgb", 1, (5, 5, 5))),
)


@pytest.fixture
def telling(tmp_path: Path, models: dict[str, bytes]) -> Path:
    """Return a file as MediaPipe's and TFLite Support's writers make it: it has its own facts."""
    metadata = pytest.importorskip("kedge_convert.export.tflite")
    path = tmp_path / "telling.tflite"
    path.write_bytes(metadata.describe(models["tflite"], SPOKEN).content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "rot\ngr\u00fcn\nblau\ndunkel")
    return path


def _silent(facts: Path, **changes: Any) -> Path:
    """Leave labels and normalisation out of the facts, and say `changes`."""
    geometry = {"geometry": FACTS["input"]["geometry"]}
    kept = {"schema": 1, "input": geometry, "output": FACTS["output"]}
    facts.write_text(json.dumps({**kept, **changes}))
    return facts


def test_a_file_tells_its_normalisation_and_labels(facts: Path, telling: Path) -> None:
    contract = read_contract(_silent(facts), telling)
    assert contract.input.normalisation == SPOKEN.input.normalisation
    assert [label.name for label in contract.labels] == ["rot", "grün", "blau", "dunkel"]
    assert Classifier.open(telling, contract=contract)(RED).best.name == "rot"


def test_a_persons_word_goes_before_the_files(facts: Path, telling: Path) -> None:
    contract = read_contract(facts, telling)
    assert contract == read_contract(facts)
    assert [label.name for label in contract.labels] == ["red", "green", "blue", "dark"]


def test_each_file_is_asked_for_what_the_facts_leave_out(
    facts: Path, telling: Path, foreign: Path, kedge: Run
) -> None:
    picture = facts.with_name("red.png")
    cv2.imwrite(str(picture), RED[..., ::-1])
    code, out, err = kedge("classify", telling, picture, "--contract", _silent(facts), "--top", 1)
    assert (code, err) == (0, "")
    assert "rot" in out
    code, out, err = kedge("classify", telling, foreign, picture, "--contract", facts)
    assert code == 2
    assert "the key 'normalisation' is missing" in err


@pytest.mark.parametrize("beside", [False, True])
def test_labels_may_lie_in_the_models_archive(facts: Path, foreign: Path, beside: bool) -> None:
    with zipfile.ZipFile(foreign, "a") as archive:
        archive.writestr("dict.txt", "a\nb\nc\nd\n")
    if beside:
        facts.with_name("dict.txt").write_text("e\nf\ng\nh\n")
    facts.write_text(json.dumps({**FACTS, "labels": "dict.txt"}))
    names = [label.name for label in read_contract(facts, foreign).labels]
    assert names == list("efgh" if beside else "abcd")


def test_labels_that_the_archive_lacks_are_named(facts: Path, telling: Path) -> None:
    silent = _silent(facts, labels="other.txt")
    with pytest.raises(
        ContractError, match=r"no other\.txt in its archive, which holds labels\.txt"
    ):
        read_contract(silent, telling)


# Public classifiers, uint8 in and out, 1001 classes, by the side of their input.
PUBLIC = {
    "mobilenet_v1_0.25_128_quant": 128,
    "mobilenet_v1_0.5_160_quant": 160,
    "tf2_mobilenet_v2_1.0_224_ptq": 224,
}


def _public(shared: Path, name: str, offset: int = 0) -> Classifier:
    folder = shared / "data" / "edgetpu"
    lines = (folder / "imagenet_labels.txt").read_text().splitlines()
    contract = Contract(
        Input(
            Geometry(PUBLIC[name], PUBLIC[name], fit="stretch"),
            Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)),
        ),
        Output("softmax", label_offset=offset),
        tuple(Label(line, line) for line in lines[offset:]),
    )
    return Classifier.open(folder / f"{name}.tflite", contract=contract)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("offset", [0, 1])
def test_a_public_classifier_names_a_cat(shared: Path, name: str, offset: int) -> None:
    classifier = _public(shared, name, offset)
    assert classifier.contract.input.tensor.dtype == "uint8"
    best = classifier(shared / "data" / "edgetpu" / "cat.bmp").best
    # Egyptian cat is class 285 of ImageNet's 1000.
    assert (best.index, best.name) == (286 - offset, "Egyptian cat")


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_classifier_tells_normalisation_and_labels(
    shared: Path, name: str, facts: Path
) -> None:
    """TensorFlow Lite Support's own writer put them there."""
    model, stated = shared / "data" / "edgetpu" / f"{name}.tflite", _public(shared, name).contract
    geometry = {"height": PUBLIC[name], "width": PUBLIC[name], "fit": "stretch"}
    said = {"schema": 1, "input": {"geometry": geometry}, "output": {"kind": "softmax"}}
    facts.write_text(json.dumps(said))
    found = Classifier.open(model, contract=read_contract(facts, model))
    assert found.contract.labels == stated.labels
    assert len(stated.labels) == 1001
    told, said_by_hand = (preprocess(each, RED) for each in (found.contract, stated))
    np.testing.assert_array_equal(told, said_by_hand)
    assert found(shared / "data" / "edgetpu" / "cat.bmp").best.name == "Egyptian cat"


def test_a_public_classifier_names_a_uniform(shared: Path) -> None:
    classifier = _public(shared, "tf2_mobilenet_v2_1.0_224_ptq")
    best = classifier(shared / "data" / "edgetpu" / "grace_hopper.bmp").best
    assert best.name == "military uniform"
    assert best.probability > 0.1


def test_its_quantised_softmax_is_not_softmaxed_again(shared: Path) -> None:
    classifier = _public(shared, "mobilenet_v1_0.25_128_quant")
    pixels = cv2.imread(str(shared / "data" / "edgetpu" / "cat.bmp"))
    assert pixels is not None
    values = classifier.probabilities(pixels, colour="bgr")
    # A second softmax would flatten it below e / 1000.
    assert values.max() == classifier(pixels, colour="bgr").best.probability > 0.1
    np.testing.assert_array_equal(values * 256, np.rint(values * 256))
