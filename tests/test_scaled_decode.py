"""Decoding at a fraction: never below what the contract's resize needs, and close to the whole."""

import io
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Geometry, Input, Normalisation
from kedge_runtime.artefact.kinds import PILLOW_FITS, Fit, Resize
from kedge_runtime.image import geometry as geometry_module
from kedge_runtime.image import pillow_filters
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.geometry import FITS, fit_to, reduction
from kedge_runtime.image.pipelines import PIPELINES
from kedge_runtime.image.preprocessing import Preprocessor

Pixels = NDArray[np.uint8]
Size = tuple[int, int]

# Target, fit, crop fraction; picture's height and width -> reduction.
CASES: list[tuple[Geometry, Size, int]] = [
    (Geometry(224, 224), (3000, 4000), 8),
    (Geometry(224, 224), (2048, 2048), 8),
    (Geometry(224, 224), (2047, 4000), 4),
    (Geometry(224, 224), (1024, 1024), 4),
    (Geometry(224, 224), (512, 9000), 2),
    (Geometry(224, 224), (511, 9000), 1),
    (Geometry(224, 224), (375, 500), 1),
    (Geometry(224, 224, crop_fraction=1.0), (448, 448), 2),
    (Geometry(224, 224, fit="stretch"), (447, 4000), 1),
    (Geometry(224, 224, fit="stretch"), (448, 4000), 2),
    (Geometry(224, 224, fit="letterbox"), (1792, 1792), 8),
    # The long side decides: what is left of the short one is resized to less than the target.
    (Geometry(224, 224, fit="letterbox"), (304, 1792), 8),
    (Geometry(224, 224, fit="letterbox"), (303, 1792), 4),
    (Geometry(100, 200, fit="stretch", orientation="ignore"), (800, 1600), 8),
    # EXIF may turn it: 800 must do for 200, too.
    (Geometry(100, 200, fit="stretch", orientation="exif"), (800, 1600), 4),
    (Geometry(224, 224, "nearest"), (3000, 4000), 1),
    (Geometry(224, 224, scaled_decode=False), (3000, 4000), 1),
    (Geometry(224, 224), (1, 1), 1),
    (Geometry(1, 1), (9, 9), 8),
]


@pytest.mark.parametrize(("geometry", "size", "expected"), CASES)
def test_the_reduction_is_the_largest_that_suffices(
    geometry: Geometry, size: Size, expected: int
) -> None:
    assert reduction(geometry, *size) == expected


def _resized(pixels: Pixels, geometry: Geometry, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the sizes before and after of every resize that fitting asks for."""
    seen: list[tuple[Size, Size]] = []

    def spied(plain: Callable[..., Any]) -> Callable[..., Any]:
        def spy(pixels: Pixels, height: int, width: int, method: Resize, **rest: Any) -> Any:
            # A box is what is scaled, in fractions of pixels.
            rows, columns = rest.get("box") or ((0, pixels.shape[0]), (0, pixels.shape[1]))
            seen.append(((rows[1] - rows[0], columns[1] - columns[0]), (height, width)))
            return plain(pixels, height, width, method, **rest)

        return spy

    with monkeypatch.context() as patch:
        for module, name in ((geometry_module, "resize"), (pillow_filters, "resample")):
            patch.setattr(module, name, spied(getattr(module, name)))
        fit_to(pixels, geometry)
    return seen


@pytest.mark.parametrize("fit", FITS)
def test_a_reduced_picture_is_never_scaled_up(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    reduced = 0
    for _ in range(150):
        height, width = (int(side) for side in generator.integers(1, 900, 2))
        tall, wide = (int(side) for side in generator.integers(1, 120, 2))
        method: Resize = "pillow_bilinear" if fit in PILLOW_FITS else "pyramid"
        geometry = Geometry(tall, wide, method, fit, float(generator.uniform(0.3, 1)))
        by = reduction(geometry, height, width)
        reduced += by > 1
        # libjpeg rounds up; EXIF may swap the sides.
        sides = math.ceil(height / by), math.ceil(width / by)
        for size in (sides, sides[::-1]) if by > 1 else ():
            for before, after in _resized(np.zeros((*size, 3), np.uint8), geometry, monkeypatch):
                assert after[0] <= before[0]
                assert after[1] <= before[1]
    assert reduced > 50


def _smooth(height: int, width: int) -> Pixels:
    seed = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(seed, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _jpeg(pixels: Pixels, orientation: int = 1) -> bytes:
    image = pytest.importorskip("PIL.Image")
    file, exif = io.BytesIO(), image.Exif()
    exif[0x0112] = orientation
    image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("by", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(777, 1003), (800, 600), (641, 9)])
def test_sides_are_divided_and_rounded_up(size: Size, by: int) -> None:
    found = read_image(_jpeg(_smooth(*size)), reduction=lambda height, width: by)
    assert found.shape == (math.ceil(size[0] / by), math.ceil(size[1] / by), 3)


@pytest.mark.parametrize("by", [2, 4, 8])
def test_a_reduced_picture_is_the_mean_of_the_blocks(by: int) -> None:
    content = _jpeg(_smooth(640, 480))
    found = read_image(content, reduction=lambda height, width: by).astype(int)
    blocks = read_image(content).reshape(640 // by, by, 480 // by, by, 3).mean(axis=(1, 3))
    assert np.abs(found - blocks).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_what_was_reduced(orientation: int) -> None:
    content = _jpeg(_smooth(640, 480), orientation)
    expected = read_image(content)[::4, ::4].shape
    found = read_image(content, reduction=lambda height, width: 4)
    assert found.shape == expected
    whole = cv2.resize(read_image(content), found.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - whole).mean() < 2
    ignored = read_image(content, "ignore", reduction=lambda height, width: 4)
    assert ignored.shape == (160, 120, 3)


def test_the_reduction_is_asked_with_the_size_as_stored() -> None:
    asked: list[Size] = []

    def note(height: int, width: int) -> int:
        asked.append((height, width))
        return 1

    read_image(_jpeg(_smooth(64, 48), orientation=6), reduction=note)
    assert asked == [(64, 48)]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_other_formats_are_never_reduced(suffix: str) -> None:
    content = cv2.imencode(suffix, _smooth(400, 300))[1].tobytes()
    assert read_image(content, reduction=lambda height, width: 8).shape == (400, 300, 3)


def _plan(**changes: Any) -> Preprocessor:
    return Preprocessor(Input(Geometry(32, 32, **changes), Normalisation()))


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (80, 60, 3)),
        ({"scaled_decode": False}, (640, 480, 3)),
        ({"resize": "nearest"}, (640, 480, 3)),
    ],
)
def test_a_preprocessor_reads_as_its_contract_says(changes: Any, shape: tuple[int, ...]) -> None:
    assert _plan(**changes).read(_jpeg(_smooth(640, 480))).shape == shape


@pytest.mark.parametrize("method", ["bilinear", "pyramid", "area"])
def test_the_tensor_hardly_changes(method: Resize) -> None:
    content = _jpeg(_smooth(1200, 1600))
    scaled, whole = _plan(resize=method), _plan(resize=method, scaled_decode=False)
    first, second = (plan.tensor(plan.read(content)) for plan in (scaled, whole))
    assert np.abs(first - second).mean() < 3


def test_an_array_is_taken_as_it_is() -> None:
    pixels = _smooth(640, 480)
    np.testing.assert_array_equal(_plan().read(pixels), pixels)


def test_load_img_never_scales() -> None:
    found = PIPELINES["load_img"].geometry(8, 8)
    assert (found.resize, found.fit, found.scaled_decode) == ("nearest", "stretch", False)
