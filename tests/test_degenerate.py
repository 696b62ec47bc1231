"""Originals that prove nothing are refused in one line; those that prove little are told."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert import doubts
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.load.finite_weights import refuse_weights
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import Source, load_source
from kedge_runtime.artefact.contract import Output
from kedge_runtime.errors import UsageError

TF = "--preprocess imagenet --normalisation tf"

Run = Callable[..., tuple[int, str, str]]
LOGITS, SIGMOID, FEATURES = (
    Output("logits"),
    Output("logits", activation="sigmoid"),
    Output("features"),
)


@pytest.fixture(scope="module")
def photos(shared: Path) -> ImageSplit:
    paths = sorted((shared / "data" / "images").iterdir())
    return ImageSplit(tuple(paths[:20]), tuple(paths[20:40]))


@pytest.fixture(scope="module")
def trained(shared: Path) -> Source:
    """Return a MobileNet with ImageNet weights."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    model = shared / "data" / "models" / "mobilenet_0.25_224.keras"
    return load_source(SourceRequest(str(model), card="MobileNet-0.25"))


@pytest.fixture(scope="module")
def answers(trained: Source, photos: ImageSplit) -> Any:
    return trained.logits(tensors(photos.validation, trained.input))


def test_a_trained_model_on_photos_is_beyond_doubt(
    trained: Source, photos: ImageSplit, answers: Any
) -> None:
    refuse_weights(trained.model, "net")
    doubts.refuse_answers(answers, "net")
    assert list(doubts.doubts(trained, photos, answers)) == []
    assert doubts.certainty(answers, LOGITS) > 0.7
    assert doubts.variation(answers) > 0.7


SPOILT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a NaN": (lambda logits: np.where(logits == logits.max(), np.nan, logits), "not finite"),
    "an infinity": (lambda logits: np.where(logits == logits.max(), np.inf, logits), "not finite"),
    "one answer": (lambda logits: logits[:1].repeat(len(logits), 0), "are all the same"),
    "one answer but for rounding": (lambda logits: logits[:1] + 1e-7 * logits, "are all the same"),
    "zeros": (np.zeros_like, "are all the same"),
}


@pytest.mark.parametrize("way", SPOILT)
def test_answers_that_prove_nothing_are_refused(answers: Any, way: str) -> None:
    change, words = SPOILT[way]
    with pytest.raises(UsageError, match=f"^net: its answers to 20 images .*{words}"):
        doubts.refuse_answers(change(answers).astype(np.float32), "net")


WEAK: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nearly one answer": (lambda logits: logits[:1] + 1e-4 * logits, "from image to image"),
    "chance": (lambda logits: 1e-3 * logits, "has 0.1 % on average, a guess 0.1 %)"),
    "as small as rounding": (
        lambda logits: 1e-17 * logits,
        "has 0.1 % on average, a guess 0.1 %)",
    ),
    "all classes alike": (
        lambda logits: 0 * logits + logits[:, :1],
        "close to chance (the best class has 0.1 %",
    ),
}


@pytest.mark.parametrize("way", WEAK)
def test_weak_answers_are_told(trained: Source, photos: ImageSplit, answers: Any, way: str) -> None:
    change, words = WEAK[way]
    weak = change(answers).astype(np.float32)
    doubts.refuse_answers(weak, "net")
    assert [line for line in doubts.doubts(trained, photos, weak) if words in line]


def test_sigmoids_and_features_have_their_own_chance(
    trained: Source, photos: ImageSplit, answers: Any
) -> None:
    def told(logits: Any, output: Output) -> list[str]:
        source = replace(trained, output=output)
        return [line for line in doubts.doubts(source, photos, logits) if "chance" in line]

    assert told(answers - 10, SIGMOID) == told(1e-3 * answers, FEATURES) == []
    (line,) = told(1e-3 * answers, SIGMOID)
    assert "close to chance (yes or no has 50.1 % on average, a guess 50.0 %): is it" in line


def test_certainty_by_hand() -> None:
    quarter = np.log(np.array([[0.25, 0.75]], np.float32))
    entropy = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert doubts.certainty(quarter, LOGITS) == pytest.approx(1 - entropy, abs=1e-6)
    odds = np.log(np.array([[0.25 / 0.75, 1.0]], np.float32))
    assert doubts.certainty(odds, SIGMOID) == pytest.approx((1 - entropy) / 2, abs=1e-6)


def untrained(source: Source) -> Source:
    """Return the same network with the weights that Keras begins with."""
    import keras

    keras.utils.set_random_seed(3)
    return replace(source, name="fresh", model=keras.models.clone_model(source.model))


def test_fresh_weights_are_told(trained: Source, photos: ImageSplit) -> None:
    fresh = untrained(trained)
    logits = fresh.logits(tensors(photos.validation, fresh.input))
    told = list(doubts.doubts(fresh, photos, logits))
    assert told[0] == "fresh: its batch norms have never seen an image: is it trained?"
    doubts.refuse_answers(logits, "fresh")


def test_answers_close_to_chance_are_told(
    trained: Source, photos: ImageSplit, answers: Any
) -> None:
    (told,) = doubts.doubts(trained, photos, 0.1 * answers)
    assert re.search(
        r"close to chance \(the best class has \d\.\d % on average, a guess 0\.1 %\)", told
    )


def test_near_copies_are_told(trained: Source, photos: ImageSplit, answers: Any) -> None:
    (told,) = doubts.doubts(trained, replace(photos, near_copies=3), answers)
    assert told.startswith("3 of the 20 validation images are nearly copies")


def one_class(photos: ImageSplit, folder: Path) -> ImageSplit:
    """Return the same photos under names of one class."""
    folder.mkdir()
    copies = [folder / f"n01440764_{i}.JPEG" for i in range(40)]
    for path, copy in zip((*photos.calibration, *photos.validation), copies, strict=True):
        shutil.copy(path, copy)
    return ImageSplit(tuple(copies[:20]), tuple(copies[20:]))


def test_one_class_by_the_files_names(
    trained: Source, photos: ImageSplit, answers: Any, tmp_path: Path
) -> None:
    same = one_class(photos, tmp_path / "tench")
    (told,) = doubts.doubts(trained, same, answers)
    assert told.startswith("all images are of one class, tench:")
    # Whatever lies before the first label: names tell labels, not outputs.
    behind = replace(trained, output=replace(trained.output, label_offset=1))
    (told,) = doubts.doubts(behind, same, np.pad(answers, ((0, 0), (1, 0))))
    assert told.startswith("all images are of one class, tench:")


def test_one_class_by_the_models_own_answers(
    trained: Source, photos: ImageSplit, answers: Any
) -> None:
    always = answers.copy()
    always[:, 7] = 99
    (told,) = doubts.doubts(trained, photos, always)
    assert told.startswith(f"{trained.name} calls every image {trained.labels[7].name}:")


def test_one_set_of_independent_labels_for_all(
    trained: Source, photos: ImageSplit, answers: Any
) -> None:
    source = replace(trained, output=SIGMOID)
    varied = answers - answers.mean()
    assert not [line for line in doubts.doubts(source, photos, varied) if "every" in line]
    always = -np.abs(varied)
    # Which of two labels is surer changes; what the picture is called doesn't.
    always[:, 6:8] = -always[:, 6:8]
    told = list(doubts.doubts(source, photos, always))
    names = " and ".join(label.name for label in trained.labels[6:8])
    assert told[-1].startswith(f"{trained.name} calls every image {names}: ")


def spoilt_file(folder: Path, change: Callable[[Any], None]) -> Path:
    """Write the demo with changed weights."""
    import keras

    from kedge_models.demo import shapes

    model = keras.models.load_model(shapes.MODEL, compile=False)
    change({weight.path: weight for weight in model.weights})
    path = folder / "spoilt.keras"
    model.save(path)
    return path


def _nan(weights: dict[str, Any]) -> None:
    weights["conv_pw_5/kernel"].assign(weights["conv_pw_5/kernel"] * np.float32("nan"))


def _dead(weights: dict[str, Any]) -> None:
    weights["conv_preds/kernel"].assign(np.zeros_like(weights["conv_preds/kernel"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(_nan, "spoilt: the weights conv_pw_5/kernel are not finite", id="NaN"),
        pytest.param(_dead, "spoilt: its answers to 10 images are all the same", id="dead"),
    ],
)
def test_the_command_ends_with_2_and_one_line(
    kedge: Run, tmp_path: Path, change: Callable[[Any], None], words: str
) -> None:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    model, labels = spoilt_file(tmp_path, change), tmp_path / "labels.txt"
    labels.write_text("\n".join("abcdefghij"))
    options = f"{TF} --check-count 10 --calibrate-count 10 --labels {labels} --json"
    code, out, err = kedge("convert", model, *options.split(), "--to", "tflite:float32")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"kedge: {words}")


@pytest.mark.slow
def test_a_small_net_that_was_never_trained_converts_with_a_warning(
    kedge: Run, tmp_path: Path, pictures: Path
) -> None:
    """Twenty layers of Keras's own weights: logits of a thousandth, each class as likely."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    import keras

    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D
    body = [conv(16, 3, padding="same", activation="relu") for _ in range(20)]
    ends = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    keras.Sequential([keras.Input((32, 32, 3)), *body, *ends]).save(tmp_path / "fresh.keras")
    (tmp_path / "labels.txt").write_text("\n".join("abcde"))
    options = f"{TF} --labels {tmp_path / 'labels.txt'} --check-count 12"
    places = ["--calibrate", pictures, "--out", tmp_path / "out"]
    to = ["--to", "tflite:float32,onnx:float32"]
    code, _, error = kedge("convert", tmp_path / "fresh.keras", *options.split(), *places, *to)
    assert code == 0, error
    words = " ".join(error.split())
    chance = (
        "fresh: its answers are close to chance (the best class has 20.0 % on average, a guess "
        "20.0 %): is it trained, and are its pixels"
    )
    assert chance in words
