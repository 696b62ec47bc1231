"""The geometries of the libraries that people train with, against those libraries.

Sizes and pixels are random and seeded.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.artefact.kinds import Fit, Resize
from kedge_runtime.errors import ContractError, ImageError
from kedge_runtime.image.geometry import fit_to, reduction, resize
from kedge_runtime.image.pillow_filters import FILTERS, resample

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


def _noise(height: int, width: int) -> Pixels:
    """Return noise; every other size has black and white only, where filters overshoot."""
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return np.where(pixels > 127, 255, 0).astype(np.uint8) if width % 2 else pixels


def _sizes(count: int, *highest: int) -> list[tuple[int, ...]]:
    drawn = np.random.default_rng(7).integers(1, highest, (count, len(highest)))
    return [tuple(map(int, each)) for each in drawn]


SMALL = _sizes(150, 9, 9, 30, 30)
LARGE = _sizes(40, 700, 700, 300, 300)
# Tall ones: Pillow 13 begins with their rows.
TALL = [
    (400, 30, 64, 64),
    (640, 360, 96, 96),
    (301, 200, 100, 100),
    (5, 900, 7, 9),
    (50, 50, 50, 9),
]


@pytest.fixture(scope="module")
def pillow() -> Any:
    return pytest.importorskip("PIL.Image")


def _filter(pillow: Any, method: str) -> Any:
    return pillow.Resampling[method.removeprefix("pillow_").upper()]


def _columns_first(pillow: Any) -> bool:
    """Whether this Pillow always resizes the columns first, as all up to 12 do."""
    return int(pillow.__version__.partition(".")[0]) < 13


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.parametrize("sizes", [SMALL, LARGE, TALL], ids=["small", "large", "tall"])
def test_filters_are_pillows_byte_for_byte(
    pillow: Any, sizes: list[tuple[int, ...]], method: Resize
) -> None:
    for h, w, height, width in sizes:
        if _columns_first(pillow) and h - height > max(0, 2 * (w - width)):
            continue
        pixels = _noise(h, w)
        image = pillow.fromarray(pixels)
        expected = np.asarray(image.resize((width, height), _filter(pillow, method)))
        found = resize(pixels, height, width, method)
        np.testing.assert_array_equal(found, expected, err_msg=f"{h}x{w} to {height}x{width}")


@pytest.mark.parametrize("method", FILTERS)
def test_boxes_in_fractions_of_pixels_are_pillows(pillow: Any, method: Resize) -> None:
    generator = np.random.default_rng(3)
    for h, w, height, width in LARGE:
        if h - height > max(0, 2 * (w - width)):
            continue
        pixels = _noise(h, w)
        top, left = generator.uniform(0, (h * 0.4, w * 0.4))
        bottom, right = generator.uniform((h * 0.6, w * 0.6), (h, w))
        image, how = pillow.fromarray(pixels), _filter(pillow, method)
        expected = np.asarray(image.resize((width, height), how, (left, top, right, bottom)))
        box = ((float(top), float(bottom)), (float(left), float(right)))
        np.testing.assert_array_equal(resample(pixels, height, width, method, box=box), expected)


def test_a_side_that_would_need_too_many_weights_is_refused() -> None:
    with pytest.raises(ImageError, match=r"image of 1x65537: .*shrink it first"):
        resample(np.zeros((65537, 1, 3), np.uint8), 8, 8, "pillow_lanczos")


@pytest.mark.parametrize("method", FILTERS)
def test_pillow_fit_is_image_ops_fit(pillow: Any, method: Resize) -> None:
    ops = pytest.importorskip("PIL.ImageOps")
    for h, w, height, width in [*LARGE, *SMALL]:
        if _columns_first(pillow) and h - height > max(0, 2 * (w - width)):
            continue
        pixels = _noise(h, w)
        expected = ops.fit(pillow.fromarray(pixels), (width, height), _filter(pillow, method))
        found = fit_to(pixels, Geometry(height, width, method, "pillow_fit"))
        np.testing.assert_array_equal(found, np.asarray(expected), err_msg=f"{h}x{w}")


def _torchvision(pillow: Any, pixels: Pixels, short: int, crop: Size, how: Any) -> Pixels:
    """Repeat Resize(short), CenterCrop(crop) of torchvision 0.29 with calls to Pillow."""
    h, w = pixels.shape[:2]
    size = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    image = pillow.fromarray(pixels).resize(size, how)
    top = round((image.height - crop[0]) / 2.0)
    left = round((image.width - crop[1]) / 2.0)
    return np.asarray(image.crop((left, top, left + crop[1], top + crop[0])))


CROPS = [(224, 256, 0.875), (299, 342, 0.875), (32, 32, 1.0), (75, 81, 75 / 81)]


@pytest.mark.parametrize("method", ["pillow_bilinear", "pillow_bicubic"])
@pytest.mark.parametrize(("side", "short", "fraction"), CROPS)
def test_torchvision_crop_is_resize_and_center_crop(
    pillow: Any, method: Resize, side: int, short: int, fraction: float
) -> None:
    for h, w in [(500, 375), (375, 500), (331, 331), (97, 41), (600, 101), (101, 600), (256, 257)]:
        pixels = _noise(h, w)
        expected = _torchvision(pillow, pixels, short, (side, side), _filter(pillow, method))
        found = fit_to(pixels, Geometry(side, side, method, "torchvision_crop", fraction))
        np.testing.assert_array_equal(found, expected, err_msg=f"{h}x{w}")


def test_torchvision_crop_of_an_oblong_never_needs_padding(pillow: Any) -> None:
    for h, w in [(90, 200), (200, 90), (100, 100)]:
        pixels = _noise(h, w)
        how = _filter(pillow, "pillow_bilinear")
        expected = _torchvision(pillow, pixels, 80, (40, 70), how)
        geometry = Geometry(40, 70, "pillow_bilinear", "torchvision_crop", 0.875)
        np.testing.assert_array_equal(fit_to(pixels, geometry), expected)


@pytest.mark.parametrize("fit", ["pillow_fit", "torchvision_crop"])
def test_pillows_fits_need_a_pillow_filter(fit: Fit) -> None:
    with pytest.raises(ContractError, match=f"fit {fit} needs a pillow filter, not bilinear"):
        Geometry(8, 8, "bilinear", fit)


def test_tf_bilinear_is_tensorflows_to_half_a_step() -> None:
    tf = pytest.importorskip("tensorflow")
    largest = 0.0
    for h, w, height, width in [*SMALL, *LARGE, (2092, 2140, 15, 23), (7, 5, 300, 401)]:
        pixels = _noise(h, w)
        expected = tf.image.resize(pixels, (height, width)).numpy()
        found = resize(pixels, height, width, "tf_bilinear").astype(np.float32)
        largest = max(largest, float(np.abs(found - expected).max()))
    assert largest <= 0.501


def test_opencvs_bilinear_is_more_than_a_step_off_tensorflows() -> None:
    """The reason why there is `tf_bilinear`."""
    tf = pytest.importorskip("tensorflow")
    pixels = np.random.default_rng(0).integers(0, 2, (2092, 2140, 3), np.uint8) * 255
    expected = tf.image.resize(pixels, (15, 23)).numpy()
    assert np.abs(resize(pixels, 15, 23, "bilinear") - expected).max() > 1
    assert np.abs(resize(pixels, 15, 23, "tf_bilinear") - expected).max() <= 0.501


def test_keras_crop_is_smart_resize() -> None:
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    for h, w, height, width in [*SMALL[:40], *LARGE, (500, 375, 224, 224), (375, 500, 160, 90)]:
        pixels = _noise(h, w)
        expected = keras.preprocessing.image.smart_resize(
            pixels.astype(np.float32), (height, width)
        )
        found = fit_to(pixels, Geometry(height, width, "tf_bilinear", "keras_crop"))
        assert np.abs(found - expected).max() <= 0.501, (h, w, height, width)


SCALED: list[tuple[Fit, Size, int]] = [
    ("keras_crop", (1600, 2400), 4),  # the cut is 1600 a side
    ("keras_crop", (1600, 1599), 2),
    ("pillow_fit", (1599, 2400), 2),
    ("torchvision_crop", (1600, 1600), 4),  # to 400
    ("torchvision_crop", (1599, 4000), 2),
]


@pytest.mark.parametrize(("fit", "size", "by"), SCALED)
def test_a_scaled_decode_never_falls_below_what_the_fit_resizes_to(
    fit: Fit, size: Size, by: int
) -> None:
    side = 350 if fit == "torchvision_crop" else 400
    geometry = Geometry(side, side, "pillow_bilinear", fit)
    assert reduction(geometry, *size) == by
