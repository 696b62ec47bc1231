"""Decoding: every format and colour mode to RGB, EXIF by policy, and one error for all the rest."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from encoded_images import TURNS
from hostile_costs import READ
from kedge_runtime.errors import ImageError
from kedge_runtime.image import decode, header
from kedge_runtime.image.decode import SUFFIXES, read_image

Image, ImageOps = (pytest.importorskip(f"PIL.{name}") for name in ("Image", "ImageOps"))

# Left half red, right half blue, and a green line below, so that any turn shows.
PIXELS = np.zeros((48, 64, 3), np.uint8)
PIXELS[:, :32], PIXELS[:, 32:], PIXELS[-8:] = (220, 20, 20), (20, 20, 220), (20, 220, 20)


def _encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, form, **options)
    return file.getvalue()


def _distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(np.abs(first.astype(int) - second).mean())


LOSSLESS = {
    "png": _encoded("PNG"),
    "bmp": _encoded("BMP"),
    "webp": _encoded("WEBP", lossless=True),
}
LOSSY = {
    "jpeg": _encoded("JPEG", quality=95),
    "progressive": _encoded("JPEG", quality=95, progressive=True),
    "webp": _encoded("WEBP", quality=95),
    "cmyk": _encoded("JPEG", "CMYK", quality=95),
}


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats_give_the_pixels_in_rgb_order(form: str) -> None:
    found = read_image(LOSSLESS[form])
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, PIXELS)


@pytest.mark.parametrize("form", LOSSY)
def test_lossy_formats_give_nearly_the_pixels(form: str) -> None:
    found = read_image(LOSSY[form])
    assert found.shape == PIXELS.shape
    assert _distance(found, PIXELS) < 6


def test_a_jpeg_is_decoded_as_pillow_does() -> None:
    expected = np.asarray(Image.open(io.BytesIO(LOSSY["jpeg"])).convert("RGB"))
    np.testing.assert_array_equal(read_image(LOSSY["jpeg"]), expected)


# Pillow itself refuses what else READ has: large texts, and a text whose sum is wrong.
UNUSUAL = [name for name in READ if "text" not in name and "profile" not in name]


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_images_are_decoded_as_pillow_does(case: str) -> None:
    content, _ = READ[case]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    expected = np.asarray(upright.convert("RGB"), int)
    # CMYK is converted by each in its own way of rounding.
    assert np.abs(read_image(content) - expected).max() <= (1 if "cmyk" in case else 0)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_every_colour_mode_of_png_becomes_rgb(mode: str) -> None:
    content = _encoded("PNG", mode)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(read_image(content), np.asarray(expected))


def test_a_grey_jpeg_has_three_equal_channels() -> None:
    found = read_image(_encoded("JPEG", "L"))
    assert found.shape == PIXELS.shape
    assert (found == found[..., :1]).all()


def test_alpha_is_dropped_and_not_blended() -> None:
    alpha = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 7, np.uint8)])
    file = io.BytesIO()
    Image.fromarray(alpha).save(file, "PNG")
    np.testing.assert_array_equal(read_image(file.getvalue()), PIXELS)


def test_sixteen_bits_keep_their_upper_eight() -> None:
    wide = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    done, content = cv2.imencode(".png", wide)
    assert done
    found = read_image(content.tobytes())
    np.testing.assert_allclose(found[..., 0].astype(float), wide / 257, atol=1)
    assert (found == found[..., :1]).all()


ORIENTATIONS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda pixels: pixels,
    **TURNS,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied_or_ignored_by_policy(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encoded("JPEG", quality=95, exif=exif)
    plain = read_image(_encoded("JPEG", quality=95))
    np.testing.assert_array_equal(read_image(content, "ignore"), plain)
    np.testing.assert_array_equal(read_image(content, "exif"), ORIENTATIONS[orientation](plain))
    np.testing.assert_array_equal(read_image(content), read_image(content, "exif"))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("turns", [0, cv2.IMREAD_IGNORE_ORIENTATION], ids=["5.0", "4.6"])
def test_webp_is_turned_alike_by_every_opencv(
    monkeypatch: pytest.MonkeyPatch, orientation: int, turns: int
) -> None:
    held = Image.Exif()
    held[0x0112] = orientation
    content = _encoded("WEBP", lossless=True, exif=held)
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda buffer, flags: decode(buffer, flags | turns))
    np.testing.assert_array_equal(read_image(content, "ignore"), PIXELS)
    np.testing.assert_array_equal(read_image(content), ORIENTATIONS[orientation](PIXELS))


EXIF = {
    "little endian": (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 6),
    "big endian": (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0", 8),
    "with a JPEG's head": (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0",
        3,
    ),
    "another tag": (b"II*\0\x08\0\0\0\x01\0\x13\x01\x03\0\x01\0\0\0\x06\0\0\0", 1),
    "no orientation": (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 1),
    "cut": (b"II*\0\x08\0\0\0\x09\0\x13\x01\x03\0", 1),
    "behind its end": (b"II*\0\xff\xff\xff\xff", 1),
    "empty": (b"", 1),
}


@pytest.mark.parametrize("case", EXIF)
def test_exif_says_how_pixels_are_stored(case: str) -> None:
    content, expected = EXIF[case]
    assert header.orientation(content) == expected


def test_path_text_bytes_and_array_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ein Bild ü.png"
    path.write_bytes(LOSSLESS["png"])
    for source in (path, str(path), LOSSLESS["png"], PIXELS):
        np.testing.assert_array_equal(read_image(source), PIXELS)


def test_an_array_that_is_a_view_becomes_contiguous() -> None:
    found = read_image(PIXELS[:, ::-1])
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, PIXELS[:, ::-1])


NO_PICTURES = {
    "empty": (b"", "the image: the file is empty"),
    "text": (b"no picture at all, but words", "the image: no readable JPEG"),
    "zeros": (bytes(5000), "the image: no readable JPEG"),
    "only a JPEG's head": (LOSSY["jpeg"][:20], "the image: cut short or damaged"),
    "half a JPEG": (LOSSY["jpeg"][: len(LOSSY["jpeg"]) // 2], "the image: cut short or damaged"),
    "half a PNG": (
        LOSSLESS["png"][: len(LOSSLESS["png"]) // 2],
        "the image: cut short or damaged",
    ),
    "half a BMP": (
        LOSSLESS["bmp"][: len(LOSSLESS["bmp"]) // 2],
        "the image: cut short or damaged",
    ),
    "half a WebP": (LOSSY["webp"][: len(LOSSY["webp"]) // 2], "the image: cut short or damaged"),
}


@pytest.mark.parametrize("case", NO_PICTURES)
def test_bytes_that_hold_no_whole_picture_are_refused(case: str) -> None:
    content, message = NO_PICTURES[case]
    with pytest.raises(ImageError, match=message):
        read_image(content)


def test_a_picture_that_claims_an_absurd_size_is_refused() -> None:
    # Width and height of a BMP lie at byte 18.
    huge = bytearray(LOSSLESS["bmp"])
    huge[18:26] = (1 << 30).to_bytes(4, "little") * 2
    with pytest.raises(ImageError):
        read_image(bytes(huge))


def test_damaged_pictures_give_pixels_or_an_image_error_and_nothing_else() -> None:
    generator = np.random.default_rng(3)
    for content in (*LOSSLESS.values(), *LOSSY.values()):
        for _ in range(60):
            damaged = bytearray(content)
            # Behind the headers: a size damaged into a vast one is only slow to refuse.
            for position in generator.integers(len(content) // 2, len(content), 3):
                damaged[position] = generator.integers(256)
            try:
                found = read_image(bytes(damaged))
            except ImageError:
                continue
            assert found.dtype == np.uint8
            assert found.shape[2] == 3


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.jpg").write_text("words")
    cases = {
        "missing.jpg": "no such file or directory",
        "folder.jpg": "is a directory",
        "empty.jpg": "the file is empty",
        "text.jpg": "no readable JPEG, PNG, WebP or BMP image",
    }
    for name, message in cases.items():
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {message}"


ARRAYS: dict[str, NDArray[Any]] = {
    "float": PIXELS.astype(np.float32),
    "wide": PIXELS.astype(np.uint16),
    "signed": PIXELS.astype(np.int8),
    "grey": PIXELS[..., 0],
    "alpha": np.dstack([PIXELS, PIXELS[..., :1]]),
    "planar": PIXELS.transpose(2, 0, 1),
    "batch": PIXELS[None],
    "no rows": PIXELS[:0],
    "scalar": np.zeros((), np.uint8),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_of_another_kind_is_refused(case: str) -> None:
    with pytest.raises(ImageError, match=r"expected uint8 \(height, width, 3\) in RGB order"):
        read_image(ARRAYS[case])


def test_suffixes_are_lower_case_and_dotted() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


BGR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@pytest.mark.skipif(not decode._RGB, reason="this OpenCV gives BGR only")
@pytest.mark.parametrize("by", BGR)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_the_decoders_own_rgb_equals_swapped_channels(suffix: str, by: int) -> None:
    noise = np.random.default_rng(by).integers(0, 256, (61, 83, 3), np.uint8)
    encoded = cv2.imencode(suffix, cv2.resize(noise, (160, 120)))[1]
    bgr, rgb = (cv2.imdecode(encoded, flags) for flags in (BGR[by], decode._COLOURS[by]))
    assert bgr is not None and rgb is not None
    assert np.array_equal(rgb, bgr[..., ::-1])
