"""Pictures from strangers: a typed error or the right pixels, cheaply, and no harm to the next one.

The corpus and its run are `hostile_images.py`, here started as a process of its own: a crash of a
decoder is then a failed test, and its memory can be bounded.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_runtime.artefact.contract import Geometry, Input, Normalisation
from kedge_runtime.errors import ImageError
from kedge_runtime.image.decode import MAX_MEMORY, ImageLimits, read_image
from kedge_runtime.image.preprocessing import Preprocessor

pytest.importorskip("PIL.Image")

SCRIPT = Path(__file__).parent / "helpers" / "hostile_images.py"
MAX_SECONDS = 2.0  # of CPU time, for one picture
# What the costliest image may take, and what Python, OpenCV and the corpus itself do.
MAX_RESIDENT = MAX_MEMORY + (256 << 20)


def _run(folder: Path, images: Sequence[Path] = ()) -> list[dict[str, Any]]:
    command = [sys.executable, SCRIPT, folder, *images]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return _run(tmp_path_factory.mktemp("hostile"))


def test_known_hostile_files_are_refused(shared: Path, tmp_path: Path) -> None:
    images = sorted((shared / "data" / "hostile").glob("image-*"))
    assert images
    found = _run(tmp_path, images)[-len(images) :]
    assert [outcome["fault"] for outcome in found] == [""] * len(images)
    assert max(outcome["peak"] for outcome in found) < MAX_RESIDENT


def test_the_corpus_is_large(outcomes: list[dict[str, Any]]) -> None:
    assert len(outcomes) >= 40


def test_each_gives_its_error_or_the_right_pixels(outcomes: list[dict[str, Any]]) -> None:
    assert [f"{o['case']}: {o['fault']}" for o in outcomes if o["fault"]] == []


def test_the_next_good_picture_is_right(outcomes: list[dict[str, Any]]) -> None:
    assert [o["case"] for o in outcomes if not o["good"]] == []


def test_none_takes_long(outcomes: list[dict[str, Any]]) -> None:
    assert [o["case"] for o in outcomes if o["seconds"] > MAX_SECONDS] == []


def test_memory_stays_bounded(outcomes: list[dict[str, Any]]) -> None:
    assert max(o["peak"] for o in outcomes) < MAX_RESIDENT


def _png(path: Path, height: int, width: int) -> Path:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    return path


LIMITS = {
    "pixels": (ImageLimits(pixels=99), r"a PNG of 10x10 pixels, allowed are 99 in all"),
    "bytes": (ImageLimits(bytes=20), r"\d+ bytes, allowed are 20; shrink it first"),
}


@pytest.mark.parametrize("case", LIMITS)
def test_limits_are_the_callers(case: str, tmp_path: Path) -> None:
    path = _png(tmp_path / "p.png", 10, 10)
    limits, message = LIMITS[case]
    assert read_image(path, limits=ImageLimits(path.stat().st_size, 100)).shape == (10, 10, 3)
    plan = Preprocessor(Input(Geometry(8, 8), Normalisation()), limits)
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match=message):
            read_image(source, limits=limits)
        with pytest.raises(ImageError, match=message):
            plan.read(source)
