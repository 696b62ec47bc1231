"""keras_hub's image classifiers are converted as their own `predict` answers, on raw images.

The extra `hub` is not part of the tests' environment (tensorflow-text alone takes 200 MB): without
it only the refusal is tested.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hub_nets
from conftest import Run
from kedge_convert.load import hub
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_models.demo import pictograms
from kedge_models.demo.shapes import LABELS
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import probabilities
from kedge_runtime.errors import UsageError
from kedge_runtime.image.geometry import fit_to
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.preprocessing import preprocess

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

MODELS = Path(__file__).parent / "models"
TINY = hub_nets.COMMITTED
IMAGES, CLASSES = pictograms.dataset(8, 11)
# Bytes of the device are rounded, TensorFlow's floats are not; of the largest logit.
ROUNDED = 0.05
Saved = Callable[[Any], SourceRequest]


@pytest.fixture
def keras_hub() -> Any:
    return pytest.importorskip("keras_hub", reason="needs pip install 'keras-kedge[hub]'")


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{label.name}\n" for label in LABELS))

    def save(model: Any) -> SourceRequest:
        model.save(tmp_path / "mine.keras")
        return SourceRequest(str(tmp_path / "mine.keras"), labels=str(labels))

    return save


@pytest.fixture
def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub", None)


@pytest.mark.usefixtures("without_hub")
def test_without_keras_hub_a_file_of_its_own_names_the_extra() -> None:
    line = (
        r"vit_tiny\.keras: needs keras_hub, which isn't installed: pip install 'keras-kedge\[hub\]'"
    )
    with pytest.raises(UsageError, match=line):
        load_source(SourceRequest(str(TINY)))


@pytest.mark.usefixtures("without_hub")
def test_without_keras_hub_a_preset_names_the_extra(tmp_path: Path) -> None:
    for name in ("config.json", "model.weights.h5", "metadata.json", "task.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=r"pip install 'keras-kedge\[hub\]'"):
        load_source(SourceRequest(str(tmp_path)))


@pytest.mark.usefixtures("without_hub")
def test_other_files_need_no_keras_hub() -> None:
    path = MODELS / "people" / "flat-jax-keras.keras"
    words = InputOptions("load_img", "unit")
    labels = MODELS / "people" / "labels.txt"
    assert load_source(SourceRequest(str(path), pixels=words, labels=str(labels))).labels


@pytest.mark.usefixtures("keras_hub")
@pytest.mark.parametrize("name", hub_nets.NETS)
def test_it_answers_as_predict_does_on_raw_images(name: str, saved: Saved) -> None:
    model = hub_nets.preprocessed(name)
    source = load_source(saved(model))
    geometry = source.input.geometry
    assert (geometry.resize, geometry.fit, geometry.orientation) == (
        ("tf_bilinear", "keras_crop", "ignore")
    )
    assert any("x / 127.5 - 1 (its preprocessor)" in note for note in source.notes)
    # Sized for the model already, so that no rounding of a byte tells the two apart.
    fitted = [fit_to(image, geometry) for image in IMAGES]
    ours = source.logits(iter([preprocess(source.input, image) for image in fitted]))
    theirs = model.predict(np.stack(fitted), verbose=0)
    answers = probabilities(ours, source.output)
    if source.head == "logits":
        theirs = probabilities(theirs, source.output)
    np.testing.assert_allclose(answers, theirs, atol=1e-4)
    assert np.ptp(theirs, axis=0).max() > 1e-3


# Options of an ImageConverter -> what the line says of them.
CONVERTERS: dict[str, tuple[dict[str, Any], str]] = {
    "stretched": ({"crop_to_aspect_ratio": False}, "tf_bilinear, stretch, no EXIF, x / 127.5 - 1"),
    "nearest": ({"interpolation": "nearest"}, "nearest, keras_crop"),
    "smooth": ({"interpolation": "bicubic", "antialias": True}, "pillow_bicubic, keras_crop"),
    "bytes": ({"scale": None, "offset": None}, "no EXIF, 0 to 255"),
    "unit": ({"scale": 1 / 255, "offset": None}, "no EXIF, x / 255"),
    "torch": (
        {
            "scale": [1 / 255 / each for each in (0.229, 0.224, 0.225)],
            "offset": [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
        },
        "(x / 255 - ImageNet's mean) / std",
    ),
    "numbers": ({"scale": 0.01, "offset": [-1.0, -1.25, -1.5]}, "(x - (100, 125, 150)) / 100"),
}


@pytest.mark.usefixtures("keras_hub")
@pytest.mark.parametrize("name", CONVERTERS)
def test_the_preprocessor_gives_the_input(name: str, saved: Saved) -> None:
    words, line = CONVERTERS[name]
    model = hub_nets.preprocessed("vit_tiny", **words)
    source = load_source(saved(model))
    assert any(line in note and "its preprocessor" in note for note in source.notes)
    black, white = (
        np.asarray(model.preprocessor(np.full((1, 32, 32, 3), each, np.float32)))[0, 0, 0]
        for each in (0, 255)
    )
    for image in IMAGES:
        theirs = np.asarray(model.preprocessor(image[None].astype(np.float32)))
        off = np.abs(preprocess(source.input, image) - theirs) * 255 / (white - black)
        assert off.mean() < 0.6


@pytest.mark.usefixtures("keras_hub")
def test_what_the_user_says_goes_before_the_preprocessor(saved: Saved) -> None:
    request = saved(hub_nets.preprocessed("vit_tiny"))
    insisted = SourceRequest(
        request.model, labels=request.labels, pixels=InputOptions("load_img", "unit")
    )
    found = load_source(insisted).input
    assert (found.geometry.resize, found.normalisation.divisor) == ("nearest", 255.0)
    hidden = SourceRequest(request.model, labels=request.labels, pixels=InputOptions("tf_hub"))
    with pytest.raises(UsageError, match=r"takes tf, but --preprocess tf_hub feeds x / 255"):
        load_source(hidden)


@pytest.mark.usefixtures("keras_hub")
def test_what_the_device_lacks_is_asked_for(saved: Saved) -> None:
    padded = {"pad_to_aspect_ratio": True, "crop_to_aspect_ratio": False}
    for model in (hub_nets.preprocessed("vit_tiny", **padded), hub_nets.build("vit_tiny")):
        with pytest.raises(UsageError, match="give --preprocess"):
            load_source(saved(model))


@pytest.mark.usefixtures("keras_hub")
def test_a_preset_folder_is_the_same_model(saved: Saved, tmp_path: Path) -> None:
    model = hub_nets.preprocessed("vit_tiny")
    request = saved(model)
    model.save_to_preset(str(tmp_path / "preset"))
    assert hub.holds(tmp_path / "preset")
    preset = load_source(SourceRequest(str(tmp_path / "preset"), labels=request.labels))
    file = load_source(request)
    assert (preset.input, preset.weights_digest) == (file.input, file.weights_digest)


@pytest.mark.usefixtures("keras_hub")
def test_a_preset_without_a_classifier_is_refused(tmp_path: Path) -> None:
    hub_nets.build("vit_tiny").backbone.save_to_preset(str(tmp_path / "preset"))
    with pytest.raises(UsageError, match=r"without an image classifier: save the classifier"):
        load_source(SourceRequest(str(tmp_path / "preset")))


@pytest.mark.slow
@pytest.mark.usefixtures("keras_hub")
@pytest.mark.parametrize("name", ["vit", "resnet_open"])
def test_the_whole_way(name: str, saved: Saved, tmp_path: Path, kedge: Run) -> None:
    model = hub_nets.preprocessed(name)
    request = saved(model)
    pictograms.write(tmp_path / "images", 40, 3)
    wanted = ("--to", "tflite:float32,onnx:float32", "--out", tmp_path / "out")
    told = ("--labels", request.labels, "--calibrate", tmp_path / "images")
    code, _, err = kedge("convert", request.model, *told, *wanted)
    assert code == 0, err
    theirs = model.predict(np.stack([image[:96, :96] for image in IMAGES]), verbose=0)
    for path in (tmp_path / "out").glob("mine.*"):
        classifier = Classifier.open(path)
        for image, logits in zip(IMAGES, theirs, strict=True):
            given = classifier.probabilities(image[:96, :96])
            expected = probabilities(logits[None], classifier.contract.output)[0]
            np.testing.assert_allclose(given, expected, atol=ROUNDED)
