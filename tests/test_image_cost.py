"""What a header says an image costs, held against what a process takes to read it."""

from pathlib import Path

import pytest

import image_cost
from kedge_runtime.errors import ImageError
from kedge_runtime.image.decode import ImageLimits, read_image
from kedge_runtime.image.header import read_header

pytest.importorskip("PIL.Image")


SIZE = 2048, 1536
SLACK = 8  # MiB; what Python and its allocator keep


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> image_cost.Spent:
    return _spent(image_cost.pillow("JPEG")(64, 48), tmp_path_factory.mktemp("small"))


def _spent(content: bytes, folder: Path) -> image_cost.Spent:
    (folder / "image").write_bytes(content)
    found = image_cost.spent(image_cost.READ, [folder / "image"], folder)
    assert not found.refused
    return found


@pytest.mark.parametrize("kind", image_cost.KINDS)
def test_the_estimate_is_what_reading_takes(
    kind: str, small: image_cost.Spent, tmp_path: Path
) -> None:
    content = image_cost.KINDS[kind](*SIZE)
    estimate = read_header(content).memory() / image_cost.MIB
    took = _spent(content, tmp_path).above(small).mib
    assert 0.6 * estimate - SLACK < took < estimate + SLACK


@pytest.mark.parametrize("kind", image_cost.KINDS)
def test_memory_is_the_callers_limit(kind: str) -> None:
    content = image_cost.KINDS[kind](64, 48)
    memory = read_header(content).memory()
    assert read_image(content, limits=ImageLimits(memory=memory)).size == 3 * 64 * 48
    with pytest.raises(ImageError, match=r"of 64x48 pixels, decoding it takes .* shrink it first"):
        read_image(content, limits=ImageLimits(memory=memory - 1))


@pytest.mark.parametrize("side", [3264, 4096])
def test_a_jpeg_that_is_decoded_at_a_fraction_may_be_larger(side: int) -> None:
    content = image_cost.pillow("JPEG")(side, side)
    limits = ImageLimits(memory=32 << 20)
    with pytest.raises(ImageError, match="decoding it takes"):
        read_image(content, limits=limits)
    halved = read_image(content, limits=limits, reduction=lambda height, width: 2)
    assert halved.shape == (side // 2, side // 2, 3)
