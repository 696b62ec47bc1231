"""The size that a model takes, and whether it normalises its pixels itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.load import input_stage, saved_model
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_convert.toolkit import require
from kedge_runtime.errors import UsageError
from kedge_runtime.image.geometry import fit_to
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import quiet


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    return require("keras")


def beginning(keras: Any, *layers: Any, side: int | None = 8) -> Any:
    """Return a classifier of five classes that begins with `layers`."""
    ends = [keras.layers.Conv2D(5, 3), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((side, side, 3)), *layers, *ends], name="mine")


def normalization(keras: Any, mean: float, deviation: float) -> Any:
    return keras.layers.Normalization(mean=[mean] * 3, variance=[deviation**2] * 3)


def operations(keras: Any, change: Callable[[Any], Any], side: int | None = 8) -> Any:
    """Return a model of Keras's operations, which are no layers of it."""
    picture = keras.Input((side, side, 3))
    return keras.Model(picture, change(picture))


# What a model begins with -> whether it takes bytes.
BEGINNINGS: dict[str, tuple[Callable[[Any], list[Any]], bool]] = {
    "nothing": (lambda k: [], False),
    "x / 255": (lambda k: [k.layers.Rescaling(1 / 255)], True),
    "x / 127.5 - 1": (lambda k: [k.layers.Rescaling(1 / 127.5, -1)], True),
    "2 x - 1, of 0..1": (lambda k: [k.layers.Rescaling(2.0, -1)], False),
    "the mean of bytes taken off": (lambda k: [k.layers.Rescaling(1.0, [-104, -117, -124])], True),
    "statistics of bytes": (lambda k: [normalization(k, 120, 58)], True),
    "statistics of 0..1": (lambda k: [normalization(k, 0.45, 0.22)], False),
    "after Resizing": (lambda k: [k.layers.Resizing(8, 8), k.layers.Rescaling(1 / 255)], True),
    "after augmentation": (
        lambda k: [k.Sequential([k.layers.RandomFlip()]), k.layers.Rescaling(1 / 255)],
        True,
    ),
    "x / 255 and statistics of 0..1": (
        lambda k: [k.layers.Rescaling(1 / 255), normalization(k, 0.45, 0.22)],
        True,
    ),
    "0..1 scaled up to bytes first": (
        lambda k: [k.layers.Rescaling(255.0), normalization(k, 120, 1)],
        False,
    ),
    "a nested model of operations": (
        lambda k: [operations(k, lambda pixels: pixels / 127.5 - 1)],
        True,
    ),
    "after a convolution": (lambda k: [k.layers.Conv2D(3, 1), k.layers.Rescaling(1 / 255)], False),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_model_that_normalises_bytes_itself_is_known(
    keras: Any, tmp_path: Path, name: str
) -> None:
    make, bytes_taken = BEGINNINGS[name]
    model = beginning(keras, *make(keras))
    assert (input_stage.normalises(model) is not None) == bytes_taken
    path = tmp_path / "mine.keras"
    (tmp_path / "labels").write_text("one\ntwo\nthree\nfour\nfive\n")
    model.save(path)
    request = SourceRequest(
        str(path), pixels=InputOptions("imagenet"), labels=str(tmp_path / "labels")
    )
    if bytes_taken:
        source = load_source(request)
        assert source.input.normalisation == NORMALISATIONS["raw"]
        assert [note for note in source.notes if "begins with its own normalisation" in note]
    else:
        with pytest.raises(UsageError, match=r"give --normalisation .* for example: kedge convert"):
            load_source(request)


# Operations at the beginning -> whether they take bytes.
OPERATIONS: dict[str, tuple[Callable[[Any, Any], Any], bool]] = {
    "x / 255": (lambda k, x: x / 255.0, True),
    "tf": (lambda k, x: k.applications.mobilenet_v2.preprocess_input(x), True),
    "caffe": (lambda k, x: k.applications.resnet50.preprocess_input(x), True),
    "torch": (lambda k, x: k.applications.densenet.preprocess_input(x), True),
    "negatives": (lambda k, x: (255.0 - x) / 255.0, True),
    "constants on both sides": (lambda k, x: k.ops.convert_to_tensor([1.0] * 3) - x / 255.0, True),
    "augmented": (lambda k, x: k.layers.RandomContrast(0.9)(x) / 127.5 - 1.0, True),
    "BGR of whatever": (lambda k, x: x[..., ::-1], False),
    "of 0..1": (lambda k, x: x * 2.0 - 1.0, False),
    "of 0..1, to means of bytes": (lambda k, x: x * 255.0 - 120.0, False),
    "statistics of each picture": (lambda k, x: (x - k.ops.mean(x)) / k.ops.std(x), False),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_that_normalise_bytes_are_known(keras: Any, name: str) -> None:
    change, bytes_taken = OPERATIONS[name]
    model = beginning(keras, operations(keras, lambda picture: change(keras, picture)))
    assert (input_stage.normalises(model) is not None) == bytes_taken


# What a model of grey images takes, and the layers before its Rescaling.
SHAPED: dict[str, tuple[tuple[int, ...], Callable[[Any], list[Any]]]] = {
    "no axis of channels": ((12, 12), lambda k: []),
    "the axis added": ((12, 12), lambda k: [k.layers.Reshape((12, 12, 1))]),
    "a row, made an image": ((144,), lambda k: [k.layers.Reshape((12, 12, 1))]),
    "made a row": ((12, 12, 1), lambda k: [k.layers.Flatten()]),
    "turned, cut and enlarged": (
        (12, 14, 1),
        lambda k: [k.layers.Permute((2, 1, 3)), k.layers.Cropping2D(2), k.layers.UpSampling2D()],
    ),
}


@pytest.mark.parametrize("name", SHAPED)
def test_layers_that_shape_an_image_may_come_before_the_normalisation(
    keras: Any, tmp_path: Path, name: str
) -> None:
    shape, make = SHAPED[name]
    ends = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2)]
    keras.Sequential([keras.Input(shape), *make(keras), *ends]).save(tmp_path / "mine.keras")
    (tmp_path / "labels").write_text("one\ntwo\n")
    path, labels = str(tmp_path / "mine.keras"), str(tmp_path / "labels")
    source = load_source(SourceRequest(path, pixels=InputOptions("load_img"), labels=labels))
    assert source.input.normalisation.mean == (0.0,)
    assert [note for note in source.notes if "begins with its own normalisation: resc" in note]


@pytest.mark.parametrize("name", sorted({*BEGINNINGS, *OPERATIONS}))
def test_a_saved_model_that_normalises_bytes_itself_is_known(
    keras: Any, tmp_path: Path, name: str
) -> None:
    make, bytes_taken = BEGINNINGS.get(name, (None, None))
    if make is None:
        change, bytes_taken = OPERATIONS[name]
        model = beginning(keras, operations(keras, lambda picture: change(keras, picture)))
    else:
        model = beginning(keras, *make(keras))
    with quiet():
        model.export(tmp_path / "mine", verbose=False)
    found = saved_model.load(SourceRequest(str(tmp_path / "mine")))
    assert (input_stage.normalises(found.model) is not None) == bytes_taken


def test_a_card_for_a_saved_model_with_its_own_is_a_contradiction(
    keras: Any, tmp_path: Path
) -> None:
    inside = operations(keras, keras.applications.resnet50.preprocess_input)
    with quiet():
        beginning(keras, inside).export(tmp_path / "mine", verbose=False)
    request = SourceRequest(str(tmp_path / "mine"), card="ResNet50")
    with pytest.raises(UsageError, match=r"its own normalisation \(functional_\S+BiasAdd\), but"):
        load_source(request)


def test_a_card_with_operations_inside_is_a_contradiction(keras: Any, tmp_path: Path) -> None:
    inside = operations(keras, keras.applications.mobilenet_v2.preprocess_input)
    beginning(keras, inside).save(tmp_path / "mine.keras")
    request = SourceRequest(str(tmp_path / "mine.keras"), card="MobileNetV2")
    with pytest.raises(
        UsageError, match=r"its own normalisation \(true_divide.*, subtract.*\), but"
    ):
        load_source(request)


def test_a_card_with_another_normalisation_is_a_contradiction(keras: Any, tmp_path: Path) -> None:
    beginning(keras, keras.layers.Rescaling(1 / 255)).save(tmp_path / "mine.keras")
    request = SourceRequest(str(tmp_path / "mine.keras"), card="MobileNetV2")
    with pytest.raises(UsageError, match=r"begins with its own normalisation .* has one too"):
        load_source(request)


# What it takes, what it begins with, --size -> the size, or what is said.
SIZES: dict[str, tuple[int | None, int | None, str | None, tuple[int, int] | str]] = {
    "its own": (8, None, None, (8, 8)),
    "its own, said again": (8, None, "8", (8, 8)),
    "another than its own": (8, None, "9", "--size 9: the model takes 8x8; leave it out"),
    "open": (None, None, None, r"is open: give --size"),
    "open, a square": (None, None, "9", (9, 9)),
    "open, height and width": (None, None, "9x10", (9, 10)),
    "open, with Resizing": (None, 7, None, (7, 7)),
    "open, with Resizing, said": (None, 7, "9", (9, 9)),
    "too small": (None, None, "2", "--size 2x2: the model can't be built for it"),
    "no size": (None, None, "big", "got 'big', allowed are 224 or 160x192"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(keras: Any, name: str) -> None:
    side, resized, size, expected = SIZES[name]
    layers = [keras.layers.Resizing(resized, resized)] if resized else []
    model = beginning(keras, *layers, side=side)
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            input_stage.fixed(model, size)
        return
    fixed = input_stage.fixed(model, size)
    assert tuple(fixed.inputs[0].shape[1:3]) == expected
    pictures = np.random.default_rng(0).uniform(size=(2, *expected, 3)).astype(np.float32)
    np.testing.assert_array_equal(fixed(pictures), model(pictures))


# The options of Resizing(80, 100) -> the geometry's resize and fit.
RESIZINGS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "plain": ({}, ("tf_bilinear", "stretch")),
    "nearest": ({"interpolation": "nearest"}, ("nearest", "stretch")),
    "cut": ({"crop_to_aspect_ratio": True}, ("tf_bilinear", "keras_crop")),
    "even": ({"antialias": True}, ("pillow_bilinear", "stretch")),
    "fine": (
        {"interpolation": "lanczos3", "antialias": True, "crop_to_aspect_ratio": True},
        ("pillow_lanczos", "keras_crop"),
    ),
    "smooth": ({"interpolation": "bicubic", "antialias": True}, ("pillow_bicubic", "stretch")),
}


def resized(keras: Any, folder: Path, *layers: Any) -> SourceRequest:
    """Return the request for a model of open size that begins with `layers`."""
    rest = keras.layers.Rescaling(1 / 255)
    beginning(keras, *layers, rest, side=None).save(folder / "mine.keras")
    (folder / "labels").write_text("one\ntwo\nthree\nfour\nfive\n")
    return SourceRequest(str(folder / "mine.keras"), labels=str(folder / "labels"))


@pytest.mark.parametrize("name", RESIZINGS)
@pytest.mark.parametrize("before", ["nothing", "rescaling"])
def test_a_resizing_layer_gives_the_geometry(
    keras: Any, tmp_path: Path, name: str, before: str
) -> None:
    options, (resize, fit) = RESIZINGS[name]
    layers = [keras.layers.Resizing(80, 100, name="mine", **options)]
    if before == "rescaling":
        layers.insert(0, keras.layers.Rescaling(1.0))
    request = resized(keras, tmp_path, *layers)
    source = load_source(request)
    found = source.input.geometry
    assert (found.height, found.width, found.crop_fraction) == (80, 100, 1.0)
    assert (found.resize, found.fit) == (resize, fit)
    line = f"input: 80x100 rgb, {resize}, {fit}"
    assert [each for each in source.notes if line in each and "its layer mine" in each]
    # What the device makes of a picture is what the layer does, to the rounding of a byte.
    if resize != "nearest":
        rows, columns = np.mgrid[:200, :160]
        photo = np.stack([rows, columns, rows // 2 + columns // 2], axis=2).astype(np.uint8)
        wanted = np.asarray(layers[-1](photo[None].astype(np.float32)))[0]
        limit = 0.51 if resize == "tf_bilinear" else 1.0
        np.testing.assert_allclose(fit_to(photo, found), np.clip(wanted, 0, 255), atol=limit)


def test_who_says_otherwise_goes_before_a_resizing_layer(keras: Any, tmp_path: Path) -> None:
    request = resized(keras, tmp_path, keras.layers.Resizing(8, 8))
    imagenet = InputOptions("imagenet")
    told_size = replace(request, size="12", pixels=imagenet)
    for told in (told_size, replace(request, card="MobileNetV3Small")):
        found = load_source(told).input.geometry
        assert (found.fit, found.crop_fraction) == ("crop", 0.875)
    found = load_source(replace(request, pixels=InputOptions("load_img"))).input.geometry
    assert (found.resize, found.orientation) == ("nearest", "ignore")


# What comes before or is asked of Resizing -> why it can't settle the geometry.
UNCLEAR: dict[str, tuple[Callable[[Any], list[Any]], str]] = {
    "cut before": (
        lambda k: [k.layers.CenterCrop(20, 20, name="cut"), k.layers.Resizing(8, 8)],
        r"any size, and CenterCrop \(cut\) cuts them before its Resizing: give --size",
    ),
    "cut before, by a slice": (
        lambda k: [operations(k, lambda x: x[:, 2:-2, 2:-2], None), k.layers.Resizing(8, 8)],
        r"any size, and GetItem \(.*\) cuts them before its Resizing: give --size",
    ),
    "padded": (
        lambda k: [k.layers.Resizing(8, 8, pad_to_aspect_ratio=True)],
        r"pads images with 0, which the device doesn't: give --size",
    ),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_a_resizing_layer_that_is_not_followed(keras: Any, tmp_path: Path, name: str) -> None:
    make, reason = UNCLEAR[name]
    request = resized(keras, tmp_path, *make(keras))
    with pytest.raises(UsageError, match=reason):
        load_source(request)
    told = replace(request, size="24", pixels=InputOptions("imagenet"))
    assert load_source(told).input.geometry.height == 24


# What the user says of the pixels of a model that begins with x / 255 -> what is refused, or how
# the line ends.
TWICE: dict[str, tuple[InputOptions, bool, str]] = {
    "unit": (InputOptions("image_dataset", "unit"), False, "would normalise twice: .* x / 255:"),
    "tf": (InputOptions("image_dataset", "tf"), False, "twice: .* --normalisation raw"),
    "numbers": (InputOptions("image_dataset", "scale=1/255"), False, "would normalise twice"),
    "a pipeline": (InputOptions("torchvision"), False, "twice: .* --preprocess torchvision"),
    "raw": (InputOptions("image_dataset", "raw"), False, ""),
    "nothing": (InputOptions("image_dataset"), False, "own normalisation: rescaling"),
    "forced": (InputOptions("image_dataset", "tf"), True, "on top of its own normalisation"),
    "a forced pipeline": (InputOptions("torchvision"), True, "on top of its own normalisation"),
}


@pytest.mark.parametrize("name", TWICE)
def test_normalising_twice_is_called_so(keras: Any, tmp_path: Path, name: str) -> None:
    pixels, forced, said = TWICE[name]
    layer = keras.layers.Rescaling(1 / 255, name="rescaling")
    beginning(keras, layer).save(tmp_path / "mine.keras")
    request = SourceRequest(
        str(tmp_path / "mine.keras"),
        pixels=pixels,
        head="features",
        force_input=forced,
    )
    if "twice" in said:
        with pytest.raises(UsageError, match=said):
            load_source(request)
        return
    notes = load_source(request).notes
    assert any(said in note for note in notes)
