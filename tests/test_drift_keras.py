"""The converter's half of drift: a real Keras model's answers, and where a drift comes from."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import encoded_images
from conftest import Run, tiny_contract
from kedge_convert.drift import hooks
from kedge_convert.drift.hooks import attribute, record
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_models.demo import pictograms, shapes
from kedge_runtime.artefact.contract import Output
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.drift import recording as writing
from kedge_runtime.drift.journal import ImageFolder
from kedge_runtime.drift.recording import Against, Sample
from kedge_runtime.drift.reference import Reference
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.image.preprocessing import preprocess

pytest.importorskip("tensorflow", reason="the float model runs in Keras")


COUNT = 60


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return COUNT of the demo's images, named by their class, and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    pictograms.write(folder, COUNT, seed=11)
    (folder / "star_999.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


@pytest.fixture(scope="module")
def reference(demo_artefacts: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the demo's answers to the images."""
    path = tmp_path_factory.mktemp("reference") / "demo.npz"
    record(_against(demo_artefacts / "demo.int8.tflite"), ImageFolder.of(photos), path)
    return path


def _against(artefact: Path) -> Against:
    return Against("demo", "imagenet", read_artefact(artefact))


def test_the_reference_is_what_keras_says(
    reference: Path, photos: Path, demo_artefacts: Path
) -> None:
    from kedge_convert.toolkit import require

    model = require("keras").models.load_model(shapes.MODEL, compile=False)
    contract = read_artefact(demo_artefacts / "demo.float32.tflite").contract
    known = Reference(reference)
    assert len(known.names) == COUNT
    assert [failure.image for failure in known.facts.failed] == ["star_999.jpg"]
    outputs = np.load(reference)["outputs"]
    for name, row in list(zip(known.names, outputs, strict=True))[:5]:
        expected = model.predict_on_batch(preprocess(contract, photos / name))[0]
        found = np.exp(row - row.max())
        np.testing.assert_allclose(found / found.sum(), expected, atol=1e-5)


def test_what_is_recorded_already_isnt_asked_again(
    reference: Path, photos: Path, demo_artefacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reference.read_bytes()
    monkeypatch.setattr(writing, "_record_missing", None)
    record(_against(demo_artefacts / "demo.int8.tflite"), ImageFolder.of(photos), reference)
    assert reference.read_bytes() == before


def test_a_stopped_recording_goes_on(
    reference: Path,
    photos: Path,
    demo_artefacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, images = _against(demo_artefacts / "demo.int8.tflite"), ImageFolder.of(photos)
    answers, done = writing._answers, []

    def stopping(*words):  # type: ignore[no-untyped-def]
        done.append(words[-1].index)
        if len(done) == 2:
            raise KeyboardInterrupt
        return answers(*words)

    monkeypatch.setattr(writing, "_answers", stopping)
    place = tmp_path / "reference.npz"
    with pytest.raises(KeyboardInterrupt):
        record(original, images, place)
    assert [path.name for path in tmp_path.iterdir()] == ["reference.npz.journal"]
    record(original, images, place)
    assert done == [0, 1, 1]
    assert place.read_bytes() == reference.read_bytes()
    assert list(tmp_path.iterdir()) == [place]


def test_another_model_is_refused(demo_artefacts: Path, tiny_model: Path, photos: Path) -> None:
    artefact = read_artefact(demo_artefacts / "demo.int8.tflite")
    provenance = replace(artefact.contract.provenance, weights_digest="sha256:other")
    other = replace(artefact, contract=replace(artefact.contract, provenance=provenance))
    with pytest.raises(UsageError, match=r"demo: its weights differ from those of .*int8.tflite"):
        hooks.load_float_model(Against("demo", "imagenet", other))


def test_a_file_is_loaded_by_what_the_contract_knows(demo_artefacts: Path, tmp_path: Path) -> None:
    """A file says neither labels nor normalisation; its user said them to `kedge convert`."""
    model = tmp_path / "mine.keras"
    shutil.copyfile(shapes.MODEL, model)
    artefact = read_artefact(demo_artefacts / "demo.int8.onnx")
    source = hooks.load_float_model(Against(str(model), "imagenet", artefact))
    assert source.labels == artefact.contract.labels
    assert source.input.normalisation == artefact.contract.input.normalisation
    assert source.input.geometry == artefact.contract.input.geometry


def test_the_steps_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 333)
    links = [hooks.Link(name, name, lambda image: 0) for name in "abcde"]
    answers = np.where(rng.uniform(size=(5, 333)) < 0.7, truth, rng.integers(0, 5, (5, 333)))
    found = hooks.attribution(links, answers, truth)
    assert [step.name for step in found.steps] == list("bcde")
    assert found.drop is not None
    drops = [step.drop.value for step in found.steps if step.drop]
    assert sum(drops) == pytest.approx(found.drop.value, abs=1e-12)
    accuracies = (answers == truth).mean(axis=1)
    assert found.drop.value == pytest.approx(accuracies[0] - accuracies[-1])
    assert sum(step.disagreement for step in found.steps) == pytest.approx(found.disagreement)
    assert found.disagreement == (answers[0] != answers[-1]).mean()
    flips = [(a != b).mean() for a, b in pairwise(answers)]
    assert [step.flips for step in found.steps] == flips
    assert hooks.attribution(links, answers, None).drop is None


def test_an_answer_of_independent_classes_is_their_set() -> None:
    several, values = Output("logits", activation="sigmoid"), np.array([0.6, 0.9, 0.1], np.float32)
    swapped, fewer = values[[1, 0, 2]], values * np.float32(0.7)
    answer = hooks._answer
    assert answer(values, several) == answer(swapped, several) != answer(fewer, several)
    assert answer(values, Output()) == answer(fewer, Output()) != answer(swapped, Output())


CHAINS = {
    "demo.int8.tflite": ["preprocessing", "export", "quantisation", "engine"],
    "demo.float32.tflite": ["preprocessing", "export", "engine"],
    "demo.float32.onnx": ["preprocessing", "export"],
}


def test_every_artefact_has_its_chain(demo_artefacts: Path, photos: Path) -> None:
    paths = sorted(photos.iterdir())[-11:]  # the broken one is among them
    sample = Sample(tuple(paths), np.arange(11) % 10)
    artefacts = [read_artefact(demo_artefacts / name) for name in CHAINS]
    original = Against("demo", "imagenet", artefacts[0])
    found = attribute(original, artefacts, sample, EngineOptions())
    for steps, each in zip(CHAINS.values(), found, strict=True):
        assert [step.name for step in each.steps] == steps
        assert each.images == 10
        # Exported in float, and run by another engine: the same answers.
        assert {step.flips for step in each.steps if step.name in ("export", "engine")} == {0.0}
    assert len({each.steps[0] for each in found}) == 1


def test_a_image_beyond_the_limits_is_unreadable_to_keras_too(
    tmp_path: Path,
) -> None:
    source, bomb = load_source(SourceRequest("demo")), tmp_path / "bomb.png"
    bomb.write_bytes(encoded_images.png_of(9000, 9000, encoded_images.zeros(9001 * 9000)))
    with pytest.raises(ImageError, match="9000x9000 pixels"):
        hooks._by_keras(source, tiny_contract("tflite"))(bomb)


def test_preprocessing_is_what_keras_itself_does(demo_artefacts: Path, photos: Path) -> None:
    """An artefact that is fed as Keras feeds the float model loses nothing by its preprocessing."""
    artefact = read_artefact(demo_artefacts / "demo.float32.tflite")
    geometry = replace(
        artefact.contract.input.geometry,
        resize="nearest",
        fit="stretch",
        orientation="ignore",
        scaled_decode=False,
    )
    taken = replace(artefact.contract.input, geometry=geometry)
    fed = replace(artefact, contract=replace(artefact.contract, input=taken))
    sample = Sample(tuple(sorted(photos.glob("[!s]*.jpg"))[:20]), None)
    (alike,) = attribute(Against("demo", "imagenet", fed), [fed], sample, EngineOptions())
    assert alike.steps[0].flips == 0
    assert alike.drop is None


def test_the_command_against_a_model(
    kedge: Run, demo_artefacts: Path, photos: Path, reference: Path, tmp_path: Path
) -> None:
    artefact = demo_artefacts / "demo.int8.tflite"
    table, place = tmp_path / "truth.csv", tmp_path / "new.npz"
    rows = [f"{path.name},{path.name.rpartition('_')[0]}" for path in sorted(photos.iterdir())]
    table.write_text("\n".join(rows))
    words = ["drift", artefact, "--images", photos, "--truth", table, "--max-drop", "20pp"]
    keeping = ["--record", place, "--attribute", 10]
    code, out, error = kedge(*words, "--against", "demo", *keeping, "--json")
    assert code == 0, error
    assert place.read_bytes() == reference.read_bytes()
    report = json.loads(out)
    (found,) = report["drifts"]
    assert found["attribution"]["images"] == 10
    device = json.loads(kedge(*words, "--against", place, "--json")[1])
    (alone,) = device["drifts"]
    for each in (found, alone):
        del each["latency"], each["attribution"]
    assert found == alone


def test_what_the_user_said_of_the_head_the_artefact_keeps(
    kedge: Run, tmp_path: Path, photos: Path
) -> None:
    """One number without a sigmoid: only `--head logits` makes two classes of it."""
    from kedge_convert.toolkit import require

    keras = require("keras")
    end = keras.layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(0, 2, seed=1))
    body = [keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()]
    model = keras.Sequential([keras.Input((16, 16, 3)), *body, end])
    model.save(tmp_path / "one.keras")
    (tmp_path / "labels").write_text("cat\ndog\n")
    options = [
        "--head",
        "logits",
        "--preprocess",
        "imagenet",
        "--normalisation",
        "tf",
        "--labels",
        tmp_path / "labels",
    ]
    wanted = ["--to", "tflite:float32", "--calibrate", photos, "--out", tmp_path / "out"]
    assert kedge("convert", tmp_path / "one.keras", *options, *wanted)[0] == 0
    artefact = tmp_path / "out" / "one.float32.tflite"
    assert read_artefact(artefact).contract.provenance.head == "logits"
    drift = ["--images", photos, "--against", tmp_path / "one.keras", "--json"]
    code, said, error = kedge("drift", artefact, *drift)
    assert code == 3, error  # 60 images are too few to decide
    assert json.loads(said)["drifts"][0]["agreement"]["value"] == 1.0


def test_a_framework_says_nothing_of_itself(demo_artefacts: Path, photos: Path) -> None:
    """It writes to the process's stderr as it starts, which only a fresh process shows."""
    artefact, words = demo_artefacts / "demo.float32.tflite", ("--images", photos, "--json")
    command = ["-m", "kedge_runtime.cli", "drift", artefact, *words, "--against", "demo"]
    ran = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 3, ran.stderr  # 60 images are too few to decide
    ours = ("float model", "demo.float32.tflite", "kedge: ")
    assert [line for line in ran.stderr.splitlines() if not line.startswith(ours)] == []
