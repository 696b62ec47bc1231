"""Each pipeline of `image/pipelines.py` against the libraries that it names, on images made
here: odd and even sizes, small and large, grey, palette, alpha, turned by EXIF.

Differences are in steps of 255: what a byte more or less would make.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Geometry, Input, Normalisation
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.pipelines import NORMALISATIONS, PIPELINES, read_normalisation
from kedge_runtime.image.preprocessing import preprocess

pytest.importorskip("tensorflow", reason="the pipelines are TensorFlow's, Keras's and Pillow's")
Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

Floats = NDArray[np.float32]
Size = tuple[int, int]
Load = Callable[[Path, Size], Any]

SIZES: list[Size] = [(1, 1), (1, 9), (7, 2), (31, 47), (64, 64), (97, 211), (375, 500), (640, 361)]
TARGETS: list[Size] = [(32, 32), (45, 45), (96, 96)]
MODES = ["L", "LA", "P", "RGBA", "1"]
TF_ROUNDING = 0.501  # TensorFlow keeps fractions, kedge rounds them to bytes
CV_ROUNDING = 1.0


def _keras() -> Any:
    from kedge_convert.toolkit import require

    return require("keras")


def _tf() -> Any:
    from kedge_convert.toolkit import require

    return require("tensorflow")


def _load_img(path: Path, size: Size, mode: str = "rgb") -> Any:
    utils = _keras().utils
    return utils.img_to_array(utils.load_img(path, target_size=size, color_mode=mode))


def _flow_from_directory(path: Path, size: Size, mode: str = "rgb") -> Any:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    flow = ImageDataGenerator().flow_from_directory(
        path.parent.parent, target_size=size, color_mode=mode, class_mode=None, shuffle=False
    )
    return next(flow)[0]


def _image_dataset(path: Path, size: Size, mode: str = "rgb", **options: Any) -> Any:
    images = _keras().utils.image_dataset_from_directory(
        path.parent.parent,
        labels=None,
        image_size=size,
        color_mode=mode,
        shuffle=False,
        verbose=False,
        **options,
    )
    return next(iter(images))[0].numpy()


def _decoded(path: Path) -> Any:
    return _tf().io.decode_image(path.read_bytes(), channels=3, expand_animations=False)


def _tf_resize(path: Path, size: Size) -> Any:
    return _tf().image.resize(_decoded(path), size).numpy()


def _tf_hub(path: Path, size: Size) -> Any:
    image = _tf().image.convert_image_dtype(_decoded(path), "float32")
    return _tf().image.resize(image, size).numpy()


def _torchvision(path: Path, size: Size) -> Any:
    """Repeat the preset of torchvision's weights by calls to Pillow, as its source does."""
    image = Image.open(path).convert("RGB")
    w, h = image.size
    short = round(max(size) / 0.875)
    scaled = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    top, left = round((image.height - size[0]) / 2.0), round((image.width - size[1]) / 2.0)
    image = image.crop((left, top, left + size[1], top + size[0]))
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    return (np.asarray(image, np.float32) / 255 - mean) / std


def _teachable_machine(path: Path, size: Size) -> Any:
    """Repeat the Python snippet that Teachable Machine exports with a Keras model."""
    image = Image.open(path).convert("RGB")
    image = ImageOps.fit(image, size[::-1], Image.Resampling.LANCZOS)
    return (np.asarray(image).astype(np.float32) / 127.5) - 1


def _pillow(path: Path, size: Size) -> Any:
    return np.asarray(Image.open(path).convert("RGB").resize(size[::-1]), np.float32)


def _opencv(path: Path, size: Size) -> Any:
    return cv2.resize(cv2.imread(str(path)), size[::-1]).astype(np.float32)  # type: ignore[arg-type]


# The pipeline itself, and the largest difference allowed.
REFERENCES: dict[str, tuple[Load, float]] = {
    "load_img": (_load_img, 0.0),
    "flow_from_directory": (_flow_from_directory, 0.0),
    "image_dataset": (_image_dataset, TF_ROUNDING),
    "tf_resize": (_tf_resize, TF_ROUNDING),
    "tf_hub": (_tf_hub, TF_ROUNDING),
    "torchvision": (_torchvision, 0.0),
    "teachable_machine": (_teachable_machine, 0.0),
    "pillow": (_pillow, 0.0),
    "opencv": (_opencv, CV_ROUNDING),
}
# These decode JPEGs by Pillow or OpenCV, whose libjpeg-turbo gives the same bytes.
SAME_JPEGS = ["load_img", "flow_from_directory", "torchvision", "teachable_machine", "pillow"]
SAME_JPEGS += ["opencv"]


def _pixels(size: Size) -> NDArray[np.uint8]:
    """Return a picture with soft and hard edges, and noise."""
    generator = np.random.default_rng(size[0] * 1000 + size[1])
    soft = cv2.resize(generator.integers(0, 256, (4, 4, 3), np.uint8), size[::-1])
    noise = generator.integers(-60, 60, (*size, 3))
    image = np.clip(soft.astype(int) + noise, 0, 255).astype(np.uint8)
    image[size[0] // 3 :: 7] = 255
    return image


def _save(folder: Path, size: Size, mode: str = "RGB", form: str = "png", **options: Any) -> Path:
    path = folder / "images" / "class" / f"image.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(size)).convert(mode).save(path, **options)
    return path


def _normalisation(name: str, colour: Colour | None = None) -> Normalisation:
    pipeline = PIPELINES[name]
    return read_normalisation(pipeline.normalisation or "raw", colour or pipeline.colour)


def _difference(name: str, path: Path, size: Size) -> float:
    """Return the largest difference between kedge's tensor and the pipeline's own, in steps."""
    load, _ = REFERENCES[name]
    normalisation = _normalisation(name)
    spec = Input(PIPELINES[name].geometry(*size), normalisation, pipeline=name)
    found = preprocess(spec, path)[0]
    steps = np.float32(normalisation.divisor) * np.array(normalisation.std, np.float32)
    return float(np.abs((found - load(path, size)) * steps).max())


def _check(name: str, path: Path, size: Size) -> None:
    # Not even in the last bit of a float: so much is left for the order of three operations.
    allowed = REFERENCES[name][1] or 1e-4
    assert _difference(name, path, size) <= allowed, f"{path.name} to {size}"


def test_every_pipeline_is_held_against_something() -> None:
    assert set(PIPELINES) - set(REFERENCES) == {"imagenet"}
    # kedge's own way of evaluating ImageNet's models: what the contract says when nobody asks.
    assert PIPELINES["imagenet"].geometry(7, 9) == Geometry(7, 9)
    assert {each.normalisation for each in PIPELINES.values()} - {""} <= set(NORMALISATIONS)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("size", SIZES)
def test_sizes(name: str, size: Size, tmp_path: Path) -> None:
    path = _save(tmp_path, size)
    for target in TARGETS[: 1 if name == "image_dataset" else None]:
        _check(name, path, target)


@pytest.mark.parametrize("name", REFERENCES)
def test_targets_that_are_no_square(name: str, tmp_path: Path) -> None:
    path = _save(tmp_path, (97, 211))
    for target in ((32, 60), (75, 41)):
        _check(name, path, target)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("mode", MODES)
def test_kinds_of_png(name: str, mode: str, tmp_path: Path) -> None:
    _check(name, _save(tmp_path, (97, 211), mode), (45, 45))


@pytest.mark.parametrize("name", REFERENCES)
def test_png_turned_by_exif(name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _check(name, _save(tmp_path, (97, 211), exif=exif), (45, 45))


@pytest.mark.parametrize("name", SAME_JPEGS)
@pytest.mark.parametrize("turn", [1, 6])
def test_jpegs(name: str, turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    path = _save(tmp_path, (375, 500), form="jpg", quality=90, exif=exif)
    _check(name, path, (96, 96))


def test_image_dataset_with_crop_to_aspect_ratio(tmp_path: Path) -> None:
    for size in SIZES:
        path = _save(tmp_path, size)
        for target in ((32, 32), (40, 64)):
            geometry = PIPELINES["image_dataset"].geometry(*target, fit="keras_crop")
            found = preprocess(Input(geometry, Normalisation()), path)[0]
            expected = _image_dataset(path, target, crop_to_aspect_ratio=True)
            assert np.abs(found - expected).max() <= TF_ROUNDING


def test_opencv_is_a_step_away_on_black_and_white_noise(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 2, (433, 633, 3)).astype(np.uint8) * 255
    Image.fromarray(noise).save(path)
    for target in ((378, 296), (300, 500), (31, 600)):
        _check("opencv", path, target)


def test_layers_resizing_is_tf_resize(tmp_path: Path) -> None:
    path = _save(tmp_path, (97, 211))
    expected = np.asarray(_keras().layers.Resizing(45, 64)(_decoded(path)))
    geometry = PIPELINES["tf_resize"].geometry(45, 64)
    found = preprocess(Input(geometry, Normalisation()), path)[0]
    assert np.abs(found - expected).max() <= TF_ROUNDING


GREYS: dict[str, tuple[Callable[[Path, Size, str], Any], float]] = {
    "load_img": (_load_img, 0.0),
    "flow_from_directory": (_flow_from_directory, 0.0),
    "image_dataset": (_image_dataset, TF_ROUNDING),
}


@pytest.mark.parametrize("mode", ["RGB", *MODES])
@pytest.mark.parametrize("name", GREYS)
def test_grey(name: str, mode: str, tmp_path: Path) -> None:
    load, largest = GREYS[name]
    for size in ((31, 47), (375, 500)):
        path = _save(tmp_path, size, mode)
        spec = Input(PIPELINES[name].geometry(45, 45), _normalisation(name, "grey"))
        expected = load(path, (45, 45), "grayscale")
        assert np.abs(preprocess(spec, path)[0] - expected).max() <= largest


@pytest.mark.parametrize("quality", [75, 95])
def test_tensorflows_jpeg_decoder_differs_by_its_fast_transform_only(
    quality: int, tmp_path: Path
) -> None:
    """The one difference of TensorFlow's pipelines that kedge can't repeat (docs)."""
    path = _save(tmp_path, (375, 500), form="jpg", quality=quality)
    ours = read_image(path, "ignore")
    exact = _tf().io.decode_jpeg(path.read_bytes(), 3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(exact, ours)
    steps = np.abs(_decoded(path).numpy().astype(int) - ours)
    assert 1 < steps.max() <= 30
    assert steps.mean() < 2
