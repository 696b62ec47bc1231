"""`kedge init`: the file that it writes is built as it stands, and every assumption is told."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tomllib

from conftest import MODELS, Run
from kedge_convert.matrix import draft
from kedge_convert.matrix.cells import groups
from kedge_convert.matrix.config import read_config
from kedge_models.demo import pictograms
from kedge_runtime.drift import sentences
from kedge_runtime.drift.gates import holds, min_agreement, share

train = pytest.importorskip("test_fit_input", reason="the converter needs TensorFlow")
labelled, unit_model = train.labelled, train.unit_model  # fixtures


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path) -> dict[str, Any]:
    """Return the only [[model]] of a file."""
    (model,) = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
    return dict(model)


@pytest.mark.slow
def test_the_file_for_the_demo_is_built_as_it_stands(kedge: Run, desk: Path) -> None:
    (desk / "photos").mkdir()
    pictograms.write(desk / "photos", 40, seed=5)
    code, printed, said = kedge("init", "demo", "photos")
    assert (code, said) == (0, "")
    assert printed.splitlines()[-1] == "wrote kedge.toml; next: kedge build"
    assert 'images = "photos"  # the drift is measured on these' in printed
    code, printed, said = kedge("build", "--cache", desk / "cache")
    assert code == 0, printed + said
    assert "2 artefacts: 2 passed" in printed


@pytest.mark.slow
def test_the_file_for_an_own_model_is_built_as_it_stands(
    kedge: Run, desk: Path, unit_model: Path, labelled: Path
) -> None:
    """Nothing is named: there is one model, one folder, and fit-input finds x / 255."""
    shutil.copy(unit_model, desk / "my net.keras")
    shutil.copytree(labelled, desk / "photos")
    code, printed, said = kedge("init")
    assert code == 0, said
    model = written(desk / "kedge.toml")
    assert model["name"] == "my-net"
    assert (model["source"], model["calibrate"]) == ("my net.keras", "photos")
    assert model["normalisation"] == "unit"
    assert "preprocess" in model
    assert 'normalisation = "unit"  # kedge fit-input on 120 labelled images, ' in printed
    text = (desk / "kedge.toml").read_text()
    assert all(f"# {line.partition('  # ')[2]}" in text for line in printed.splitlines()[:-2])
    code, printed, said = kedge("build", "--cache", desk / "cache")
    assert code == 0, printed + said


def test_what_the_user_gives_is_not_asked_again(
    kedge: Run, desk: Path, unit_model: Path, labelled: Path
) -> None:
    (desk / "a").mkdir()
    words = ["--preprocess", "load_img", "--normalisation", "unit", "--config", desk / "a/b.toml"]
    code, printed, said = kedge("init", unit_model, labelled, *words)
    assert code == 0, said
    assert "fit-input" not in printed
    model = written(desk / "a" / "b.toml")
    assert (model["preprocess"], model["normalisation"]) == ("load_img", "unit")
    (group,) = groups(read_config(desk / "a" / "b.toml"))
    assert Path(group.cells[0].model.source).resolve() == unit_model
    assert Path(str(group.cells[0].model.images)).resolve() == labelled
    assert printed.splitlines()[-1].endswith(f"next: kedge build {desk}/a/b.toml")


def test_a_model_that_normalises_bytes_itself_gets_no_normalisation(
    kedge: Run, desk: Path, labelled: Path
) -> None:
    keras = train.require("keras")
    scaled = keras.layers.Rescaling(1 / 127.5, -1)
    train.train(lambda x: x, scaled).save(desk / "own.keras")
    code, _, said = kedge("init", "own.keras", labelled)
    assert code == 0, said
    assert "normalisation" not in written(desk / "kedge.toml")
    assert "preprocess" in written(desk / "kedge.toml")


def test_without_class_folders_nothing_is_guessed(
    kedge: Run, desk: Path, tiny_model: Path, pictures: Path
) -> None:
    labels = tiny_model.with_name("labels.txt")
    code, printed, said = kedge("init", tiny_model, pictures, "--labels", labels)
    assert (code, printed) == (2, "")
    last = said.splitlines()[-1]
    assert "give --preprocess (" in last
    assert f"Then run, for example: kedge init {tiny_model} {pictures}" in last
    assert not (desk / "kedge.toml").exists()


@pytest.mark.parametrize("words", [[], ["--config", "kedge.toml"]])
def test_a_file_is_never_overwritten_unasked(kedge: Run, desk: Path, words: list[str]) -> None:
    (desk / "kedge.toml").write_text("mine")
    code, printed, said = kedge("init", "demo", *words)
    assert (code, printed) == (2, "")
    assert said == (
        "kedge: kedge.toml: exists; --force overwrites it, --config FILE writes another\n"
    )
    assert (desk / "kedge.toml").read_text() == "mine"
    assert kedge("init", "demo", *words, "--force")[0] == 0
    assert written(desk / "kedge.toml")["name"] == "demo"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "MODEL is missing, and this folder holds 0 models: kedge init MODEL IMAGES"),
        (["mobilenet"], "IMAGES is missing, and this folder holds 0 image folders"),
        (["mobilnet", "photos"], "IMAGES: photos: no such folder"),
        (["mobilnet", "."], "did you mean MobileNet"),
        (["none.keras", "."], "none.keras: no such file"),
    ],
)
def test_a_mistake_is_one_line(kedge: Run, desk: Path, words: list[str], line: str) -> None:
    code, printed, said = kedge("init", *words)
    assert (code, printed, said.count("\n")) == (2, "", 1), said
    assert line in said
    assert not (desk / "kedge.toml").exists()


@pytest.mark.parametrize("model", ["demo", "MobileNetV2", "own.keras"])
@pytest.mark.parametrize("labels", ["/dev/zero", "/dev/null", "none.txt", "."])
def test_labels_that_cant_be_read_write_no_file(
    kedge: Run, desk: Path, model: str, labels: str
) -> None:
    (desk / "own.keras").touch()
    (desk / "photos").mkdir()
    code, printed, said = kedge("init", model, "photos", "--labels", labels)
    assert (code, printed, said.count("\n")) == (2, "", 1), said
    assert labels in said
    assert not (desk / "kedge.toml").exists()


def test_the_options_for_a_card_are_kept(kedge: Run, desk: Path) -> None:
    pictograms.write(desk / "photos", 4, seed=5)
    words = ["--labels", "imagenet", "--preprocess", "image_dataset", "--no-exif"]
    code, _, said = kedge("init", "MobileNetV2", "photos", *words)
    assert code == 0, said
    model = written(desk / "kedge.toml")
    assert {name: model[name] for name in ("labels", "preprocess", "exif")} == {
        "labels": "imagenet",
        "preprocess": "image_dataset",
        "exif": False,
    }


def test_two_models_are_no_default(kedge: Run, desk: Path) -> None:
    for name in ("a.keras", "b.keras"):
        (desk / name).touch()
    assert "holds 2 models (a.keras, b.keras): kedge init" in kedge("init")[2]


def test_a_card_takes_the_parts_of_a_data_set(kedge: Run, desk: Path) -> None:
    for part in ("Train", "val"):
        (desk / "data" / part).mkdir(parents=True)
        pictograms.write(desk / "data" / part, 12, seed=1)
    code, _, said = kedge("init", "MobileNetV2")
    assert (code, said) == (0, "")
    model = written(desk / "kedge.toml")
    folders = ("data/Train", "data/val")
    assert (model["source"], model["calibrate"], model["images"]) == ("MobileNetV2", *folders)
    assert model["gates"] == {"min_agreement": "55.1%"}  # of 12 images
    (group,) = groups(read_config(desk / "kedge.toml"))
    assert [cell.name for cell in group.cells] == [
        "MobileNetV2.int8.tflite",
        "MobileNetV2.int8.onnx",
    ]


def test_the_drift_gets_a_folder_of_its_own(kedge: Run, desk: Path) -> None:
    for folder, count in (("flowers", 12), ("flowers-test", 90)):
        (desk / folder).mkdir()
        pictograms.write(desk / folder, count, seed=1)
    code, printed, said = kedge("init", "MobileNetV2", "flowers", "--drift-images", "flowers-test")
    assert (code, said) == (0, "")
    assert 'images = "flowers-test"  # as given; the drift is measured on these' in printed
    model = written(desk / "kedge.toml")
    assert (model["calibrate"], model["images"]) == ("flowers", "flowers-test")
    assert model["gates"] == {"min_agreement": "74.3%"}
    words = ("init", "MobileNetV2", "flowers", "--force", "--drift-images")
    code, _, said = kedge(*words, "none")
    assert (code, said) == (
        2,
        "kedge: --drift-images: none: no such folder; give a folder of images\n",
    )


@pytest.mark.parametrize("images", [1, 4, 12, 40, 58, 90, 105, 1000])
def test_the_gate_is_what_drift_says_of_so_many_flips(images: int) -> None:
    """A fresh model had 84 % of 90 images: that passes the gate."""
    flips = draft.flips_for(images)
    assert flips >= 0.16 * images
    gate = draft.holds_for(images).min_agreement
    assert min_agreement(gate, images - flips, images).verdict == "PASS"
    told = sentences.held(holds(None, share(images - flips, images)), images)
    assert draft.gate_reason(images).startswith(told.rstrip(".").replace("\xa0", " "))


def test_init_and_drift_say_what_the_images_can_hold_in_the_same_words(
    kedge: Run, desk: Path
) -> None:
    pictograms.write(desk / "photos", 12, seed=1)
    code, printed, _ = kedge("init", "demo", "photos")
    assert code == 0
    words = "These 12 images can hold --min-agreement 55.1% if up to 2 flip"
    assert words in " ".join(printed.split())
    text = (desk / "kedge.toml").read_text()
    assert words in text
    assert draft.AFTER in text
    assert written(desk / "kedge.toml")["gates"] == {"min_agreement": "55.1%"}


def test_names_stay_inside_their_strings_and_comments(kedge: Run, desk: Path) -> None:
    name = 'a"\n[x]\nb = "\x7f\u202e.keras'
    shutil.copy(MODELS / "small-mobilenetv3.keras", desk / name)
    (desk / "photos").mkdir()
    pictograms.write(desk / "photos", 12, seed=1)
    words = ["--preprocess", "image_dataset", "--normalisation", "unit", "--labels", "l.txt"]
    (desk / "l.txt").write_text("\n".join(pictograms.NAMES))
    code, _, said = kedge("init", name, "photos", *words)
    assert code == 0, said
    assert written(desk / "kedge.toml")["source"] == name
    assert set(tomllib.loads((desk / "kedge.toml").read_text())) == {"out", "model"}


def test_a_file_that_is_called_as_a_word_stays_a_file(tmp_path: Path) -> None:
    assert draft.placed("source", tmp_path / "demo", tmp_path / "kedge.toml") == '"./demo"'
