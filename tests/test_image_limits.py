"""`read_image`: limits to the byte and the pixel, turns, reductions, and its refusals."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from encoded_images import BMP, JPEG, PIXELS, PNG, WEBP, bmp_of, encoded, png_of, wide, zeros
from kedge_runtime.errors import ImageError
from kedge_runtime.image.decode import (
    LIMITS,
    MAX_BYTES,
    MAX_MEMORY,
    MAX_PIXELS,
    ImageLimits,
    full_size,
    is_readable,
    read_bytes,
    read_image,
)
from kedge_runtime.image.header import read_header

pytest.importorskip("PIL.Image")


WHERE = ("bytes", "path", "text")


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    return str(caught.value)


def _source(where: str, content: bytes, folder: Path) -> tuple[Path | str | bytes, str]:
    """Return an image as bytes or in a file, and what a message calls it."""
    path = folder / "image"
    path.write_bytes(content)
    sources: dict[str, Path | str | bytes] = {"bytes": content, "path": path, "text": str(path)}
    return sources[where], "the image" if where == "bytes" else str(path)


@pytest.mark.parametrize("where", WHERE)
def test_each_limit_is_the_last_that_is_allowed(where: str, tmp_path: Path) -> None:
    source, name = _source(where, PNG, tmp_path)
    size, memory = len(PNG), read_header(PNG).memory()
    assert read_image(source, limits=ImageLimits(size, 64 * 48, memory)).shape == (48, 64, 3)
    assert refusal(source, limits=ImageLimits(bytes=size - 1)) == (
        f"{name}: {size} bytes, allowed are {size - 1}; shrink it first"
    )
    assert refusal(source, limits=ImageLimits(pixels=64 * 48 - 1)) == (
        f"{name}: a PNG of 64x48 pixels, allowed are 3071 in all; shrink it first"
    )
    assert refusal(source, limits=ImageLimits(memory=memory - 1)).startswith(
        f"{name}: a PNG of 64x48 pixels, decoding it takes 0.0 MiB, allowed are 0.0 MiB; shrink"
    )


def test_limits_are_those_that_the_guide_names() -> None:
    assert (MAX_BYTES, MAX_PIXELS, MAX_MEMORY) == (64 << 20, 8192 * 8192, 320 << 20)
    assert ImageLimits() == LIMITS == ImageLimits(MAX_BYTES, MAX_PIXELS, MAX_MEMORY)


def test_a_refusal_says_the_memory_in_mib() -> None:
    large = png_of(8000, 7500, zeros(8001 * 7500))
    assert refusal(large, limits=ImageLimits(memory=100 << 20)) == (
        "the image: a PNG of 8000x7500 pixels, "
        "decoding it takes 343.4 MiB, allowed are 100.0 MiB; shrink it first"
    )


def test_a_file_of_one_byte_too_many_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES)
    assert len(read_bytes(path)) == MAX_BYTES
    with path.open("ab") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="67108865 bytes, allowed are 67108864"):
        read_bytes(path)
    # The caller's own limit holds before the file is read.
    assert "67108865 bytes, allowed are 20;" in refusal(path, limits=ImageLimits(bytes=20))


def test_a_file_is_read_to_the_size_that_was_checked() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    assert refusal("/proc/self/status") == "/proc/self/status: the file is empty"


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = "a pipe, a socket or a device; images are read from files"
    assert refusal(tmp_path / "pipe") == f"{tmp_path / 'pipe'}: {pipe}"
    assert refusal(os.devnull) == f"{os.devnull}: {pipe}"
    assert refusal(tmp_path) == f"{tmp_path}: is a directory"


def test_a_name_that_no_file_can_have_is_refused() -> None:
    said = refusal("a\0b.png")
    assert said.startswith("a\0b.png: invalid file name (")
    assert "null" in said


def test_a_file_is_readable_when_it_holds_a_whole_image(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(JPEG)
    (tmp_path / "cut").write_bytes(JPEG[:-2])
    assert is_readable(tmp_path / "whole")
    assert not is_readable(tmp_path / "cut")
    assert not is_readable(tmp_path / "missing")


def _turned(form: str, orientation: int) -> bytes:
    held = Image.Exif()
    held[0x0112] = orientation
    return encoded(form, exif=held, lossless=True)  # JPEG has no such option, and no need


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_turned_as_pillow_turns_them(form: str, orientation: int) -> None:
    content = _turned(form, orientation)
    stored = Image.open(io.BytesIO(content)).convert("RGB")
    upright = np.asarray(ImageOps.exif_transpose(stored))
    assert (upright.shape == (64, 48, 3)) == (orientation > 4)
    found = read_image(content)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, upright)
    np.testing.assert_array_equal(read_image(content, "ignore"), np.asarray(stored))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("by", [1, 2, 4, 8])
def test_a_jpeg_is_reduced_as_pillow_does(by: int, where: str, tmp_path: Path) -> None:
    content = _turned("JPEG", 6)
    source, _ = _source(where, content, tmp_path)
    asked: list[tuple[int, int]] = []

    def reduction(height: int, width: int) -> int:
        asked.append((height, width))
        return by

    draft = Image.open(io.BytesIO(content))
    draft.draft("RGB", (64 // by, 48 // by))
    stored = np.asarray(draft.convert("RGB"), int)
    assert stored.shape == (48 // by, 64 // by, 3)
    ignored = read_image(source, "ignore", reduction=reduction)
    np.testing.assert_array_equal(ignored, stored)
    np.testing.assert_array_equal(read_image(source, reduction=reduction), np.rot90(stored, -1))
    assert asked == [(48, 64)] * 2


@pytest.mark.parametrize("content", [PNG, WEBP, BMP], ids=["png", "webp", "bmp"])
def test_only_a_jpeg_is_reduced(content: bytes) -> None:
    np.testing.assert_array_equal(
        read_image(content, reduction=lambda height, width: 8), read_image(content)
    )


def test_a_reduced_jpeg_costs_the_memory_of_its_fraction() -> None:
    content = wide("JPEG", 480, 640)
    header = read_header(content)
    limits = ImageLimits(memory=header.memory(4))
    assert read_image(content, limits=limits, reduction=lambda h, w: 4).shape == (120, 160, 3)
    assert "decoding it takes" in refusal(content, limits=limits, reduction=lambda h, w: 2)
    assert "decoding it takes" in refusal(content, limits=limits)
    assert full_size(480, 640) == 1


UNDECODABLE = {
    "a damaged PNG": (
        png_of(64, 48, b"\x11" * 99),
        "the image: a damaged PNG image, no decoder can read it",
    ),
    "higher than OpenCV reads": (
        bmp_of(1, (1 << 20) + 1, 8, 1, b"\0\1"),
        "the image: can't be decoded (",
    ),
}


@pytest.mark.parametrize("case", UNDECODABLE)
def test_what_no_decoder_reads_is_refused_in_a_line(case: str) -> None:
    content, message = UNDECODABLE[case]
    said = refusal(content)
    assert said.startswith(message)
    assert "\n" not in said


ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "float64 (48, 64, 3)": PIXELS.astype(float),
    "uint8 (48, 64)": PIXELS[..., 0],
    "uint8 (48, 3)": PIXELS[:, 0],
    "uint8 (48, 64, 4)": np.dstack([PIXELS, PIXELS[..., :1]]),
    "uint8 (48, 64, 2)": PIXELS[..., :2],
    "uint8 (1, 48, 64, 3)": PIXELS[None],
    "uint8 (48, 64, 3, 1)": PIXELS[..., None],
    "uint8 (48, 0, 3)": PIXELS[:, :0],
    "int8 (48, 64, 3)": PIXELS.astype(np.int8),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_is_refused_with_what_came(case: str) -> None:
    batch = "; for a batch, give list(array)" if ARRAYS[case].ndim == 4 else ""
    assert refusal(ARRAYS[case]) == (
        f"got an array of {case}, expected uint8 (height, width, 3) in RGB order{batch}"
    )


def test_an_array_has_no_limits() -> None:
    assert read_image(PIXELS, limits=ImageLimits(0, 0, 0)) is not None
    np.testing.assert_array_equal(
        read_image(PIXELS[::-1], limits=ImageLimits(0, 0, 0)), PIXELS[::-1]
    )
