"""Resizing and fitting against oracles: Pillow, OpenCV, and references written here from the words.

Random sizes and pixels are seeded.
"""

import math
import tracemalloc

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.artefact.kinds import PILLOW_FITS, Fit, Resize
from kedge_runtime.image.geometry import (
    FITS,
    LETTERBOX_GREY,
    RESIZES,
    fit_to,
    nearest_index,
    resize,
)

Pixels = NDArray[np.uint8]


def _noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


PAIRS: list[tuple[Fit, Resize]] = [
    (fit, method)
    for fit in FITS
    for method in RESIZES
    if fit not in PILLOW_FITS or method.startswith("pillow")
]
SIZES = [(1, 1), (1, 7), (5, 3), (17, 31), (96, 96), (97, 211), (333, 250), (431, 640)]
TARGETS = [(1, 1), (8, 8), (7, 13), (96, 96), (224, 192)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", SIZES)
def test_nearest_is_pillows_byte_for_byte(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = _noise(*size)
    height, width = target
    expected = image.fromarray(pixels).resize((width, height), image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize(pixels, height, width, "nearest"), np.asarray(expected))


def test_nearest_indexes_are_pillows_over_many_widths() -> None:
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(1)
    for size, target in generator.integers(1, [[1500, 400]] * 1500):
        # The position itself, in 32 bits, is the pixel.
        row = image.fromarray(np.arange(size, dtype=np.int32)[None])
        expected = np.asarray(row.resize((int(target), 1), image.Resampling.NEAREST))[0]
        np.testing.assert_array_equal(nearest_index(int(size), int(target)), expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", SIZES)
def test_bilinear_is_opencvs_exact_one(size: tuple[int, int], target: tuple[int, int]) -> None:
    pixels = _noise(*size)
    expected = cv2.resize(pixels, target[::-1], interpolation=cv2.INTER_LINEAR_EXACT)
    np.testing.assert_array_equal(resize(pixels, *target, "bilinear"), expected)


@pytest.mark.parametrize("size", [(8, 8), (15, 15), (15, 9), (9, 15), (5, 4), (3, 14)])
def test_pyramid_is_bilinear_below_a_factor_of_two(size: tuple[int, int]) -> None:
    pixels = _noise(*size)
    np.testing.assert_array_equal(resize(pixels, 8, 8, "pyramid"), resize(pixels, 8, 8, "bilinear"))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_pyramid_by_a_power_of_two_is_the_mean_of_the_blocks(steps: int) -> None:
    by = 2**steps
    pixels = _noise(12 * by, 10 * by)
    means = pixels.reshape(12, by, 10, by, 3).mean(axis=(1, 3))
    # Each halving rounds once, by a half at most.
    assert np.abs(resize(pixels, 12, 10, "pyramid") - means).max() <= 0.5 * steps


FINE = [(512, 512), (513, 767), (300, 2000), (2000, 300), (97, 1000)]


@pytest.mark.parametrize("size", FINE)
@pytest.mark.parametrize("stripes", ["rows", "columns", "checks"])
def test_pyramid_turns_the_finest_stripes_grey(size: tuple[int, int], stripes: str) -> None:
    rows, columns = np.indices(size)
    phase = {"rows": rows, "columns": columns, "checks": rows + columns}[stripes]
    pixels = np.repeat(((phase % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    small = resize(pixels, 48, 48, "pyramid").astype(int)
    assert np.abs(small - 128).max() <= 6


@pytest.mark.parametrize("long", [500, 999, 2000])
def test_pyramid_does_not_alias_on_the_one_side_that_shrinks(long: int) -> None:
    stripes = np.zeros((60, long, 3), np.uint8)
    stripes[:, ::2] = 255
    for pixels in (stripes, np.ascontiguousarray(stripes.transpose(1, 0, 2))):
        small = resize(pixels, 48, 48, "pyramid").astype(int)
        assert np.abs(small - 128).max() <= 6


def test_plain_bilinear_does_alias_on_the_same_stripes() -> None:
    pixels = np.zeros((480, 480, 3), np.uint8)
    pixels[::5] = pixels[1::5] = 255
    small = resize(pixels, 90, 90, "bilinear").astype(int)
    assert np.ptp(small) > 100
    assert np.ptp(resize(pixels, 90, 90, "pyramid").astype(int)) < np.ptp(small)


@pytest.mark.parametrize("method", RESIZES)
def test_a_picture_of_the_right_size_is_left_alone(method: Resize) -> None:
    pixels = _noise(9, 11)
    np.testing.assert_array_equal(resize(pixels, 9, 11, method), pixels)


@pytest.mark.parametrize(("fit", "method"), PAIRS)
def test_one_colour_stays_that_colour(fit: Fit, method: Resize) -> None:
    pixels = np.broadcast_to(np.array([10, 200, 77], np.uint8), (37, 53, 3))
    fitted = fit_to(np.ascontiguousarray(pixels), Geometry(12, 16, method, fit))
    inner = fitted[5:7, 5:11]
    assert (inner == [10, 200, 77]).all()


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _crop_in_words(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Shorter side to size / fraction by nearest, then the centre: one output pixel at a time."""
    h, w = pixels.shape[:2]
    need_h = _half_up(geometry.height / geometry.crop_fraction)
    need_w = _half_up(geometry.width / geometry.crop_fraction)
    scale = max(need_h / h, need_w / w)
    scaled = max(need_h, _half_up(h * scale)), max(need_w, _half_up(w * scale))
    rows, columns = nearest_index(h, scaled[0]), nearest_index(w, scaled[1])
    top, left = (scaled[0] - geometry.height) // 2, (scaled[1] - geometry.width) // 2
    out = np.empty((geometry.height, geometry.width, 3), np.uint8)
    for y in range(geometry.height):
        for x in range(geometry.width):
            out[y, x] = pixels[rows[top + y], columns[left + x]]
    return out


CROPS = [
    ((40, 60), Geometry(16, 16, "nearest", "crop", 0.875)),
    ((61, 40), Geometry(16, 16, "nearest", "crop", 1.0)),
    ((33, 33), Geometry(16, 24, "nearest", "crop", 0.5)),
    ((33, 90), Geometry(24, 16, "nearest", "crop", 0.875)),
    ((5, 7), Geometry(16, 16, "nearest", "crop", 0.875)),
    ((1, 1), Geometry(16, 16, "nearest", "crop", 0.1)),
]


@pytest.mark.parametrize(("size", "geometry"), CROPS)
def test_crop_is_what_its_words_say(size: tuple[int, int], geometry: Geometry) -> None:
    pixels = _noise(*size)
    np.testing.assert_array_equal(fit_to(pixels, geometry), _crop_in_words(pixels, geometry))


def test_a_crop_of_224_at_87_5_per_cent_is_the_centre_of_256() -> None:
    pixels = _noise(256, 384)
    fitted = fit_to(pixels, Geometry(224, 224, "bilinear", "crop", 0.875))
    np.testing.assert_array_equal(fitted, pixels[16:240, 80:304])


@pytest.mark.parametrize("method", RESIZES)
def test_stretch_is_the_bare_resize(method: Resize) -> None:
    pixels = _noise(50, 31)
    geometry = Geometry(20, 24, method, "stretch")
    np.testing.assert_array_equal(fit_to(pixels, geometry), resize(pixels, 20, 24, method))


# Picture, target, and the box that the picture fills: top, left, height, width.
BOXES = [
    ((40, 80), (20, 20), (5, 0, 10, 20)),
    ((80, 40), (20, 20), (0, 5, 20, 10)),
    ((30, 30), (20, 20), (0, 0, 20, 20)),
    ((10, 30), (20, 40), (3, 0, 13, 40)),
    ((1, 1000), (16, 16), (7, 0, 1, 16)),
]


@pytest.mark.parametrize(("size", "target", "box"), BOXES)
def test_letterbox_keeps_the_aspect_and_fills_with_grey(
    size: tuple[int, int], target: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    pixels = _noise(*size)
    fitted = fit_to(pixels, Geometry(*target, "area", "letterbox"))
    top, left, height, width = box
    expected = np.full((*target, 3), LETTERBOX_GREY, np.uint8)
    inside = expected[top : top + height, left : left + width]
    inside[:] = resize(pixels, height, width, "area")
    np.testing.assert_array_equal(fitted, expected)


EXTREMES = [(1, 5000), (5000, 1), (1, 1), (2, 4999), (1, 2), (3000, 2)]


@pytest.mark.parametrize("size", EXTREMES)
@pytest.mark.parametrize(("fit", "method"), PAIRS)
def test_extreme_pictures_fit_without_much_memory(
    fit: Fit, method: Resize, size: tuple[int, int]
) -> None:
    pixels = _noise(*size)
    tracemalloc.start()
    try:
        fitted = fit_to(pixels, Geometry(96, 64, method, fit))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fitted.shape == (96, 64, 3)
    assert fitted.dtype == np.uint8
    assert peak < 3 << 20


@pytest.mark.parametrize(("fit", "method"), PAIRS)
def test_the_callers_picture_is_never_written_to(fit: Fit, method: Resize) -> None:
    for size in ((96, 64), (96, 96), (200, 300)):
        pixels = _noise(*size)
        before = pixels.copy()
        fit_to(pixels, Geometry(96, 64, method, fit, 1.0))
        np.testing.assert_array_equal(pixels, before)
