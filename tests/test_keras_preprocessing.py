"""load_img + img_to_array + preprocess_input of Keras itself, over every application and every kind
of picture, against `nearest`, `stretch`, `ignore` of the runtime: bit for bit, but for what
docs/preprocessing.md lists.
"""

import io
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_models import cards
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation
from kedge_runtime.image.input_options import InputOptions, resolve_input
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.image.preprocessing import preprocess

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "nearest_equality.py"
SIZE = (61, 97)
MODES = {item.module: item.normalisation for item in cards().values()}
ODD = [(1, 1), (1, 9), (9, 1), (2, 3), (61, 97), (97, 61), (123, 45), (331, 217)]


def _picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def _saved(
    form: str, mode: str = "RGB", size: tuple[int, int] = (83, 131), **options: Any
) -> bytes:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(_picture(*size)).convert(mode).save(file, form, **options)
    return file.getvalue()


def _transparent_palette() -> bytes:
    return _saved("PNG", "P", transparency=3)


def _turned() -> bytes:
    exif = pytest.importorskip("PIL.Image").Exif()
    exif[0x0112] = 6
    return _saved("JPEG", quality=90, exif=exif)


EXACT: dict[str, Callable[[], bytes]] = {
    **{
        f"{form} {height}x{width}": lambda form=form, size=(height, width): _saved(form, size=size)  # type: ignore[misc]
        for form in ("JPEG", "PNG", "BMP")
        for height, width in ODD
    },
    "progressive JPEG": lambda: _saved("JPEG", progressive=True),
    "JPEG 4:4:4": lambda: _saved("JPEG", quality=95, subsampling=0),
    "grey JPEG": lambda: _saved("JPEG", "L"),
    "grey PNG": lambda: _saved("PNG", "L"),
    "grey PNG with alpha": lambda: _saved("PNG", "LA"),
    "palette": lambda: _saved("PNG", "P"),
    "palette with a transparent colour": _transparent_palette,
    "alpha": lambda: _saved("PNG", "RGBA"),
    "one bit": lambda: _saved("PNG", "1"),
    "lossless WebP": lambda: _saved("WEBP", lossless=True),
    "EXIF orientation 6": _turned,
}


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="the preprocessing is held against Keras")
    return pytest.importorskip("keras")


def _loaded(keras: Any, content: bytes) -> NDArray[np.float32]:
    image = keras.utils.load_img(io.BytesIO(content), target_size=SIZE)
    return np.asarray(keras.utils.img_to_array(image), np.float32)


def _ours(content: bytes, normalisation: Normalisation) -> NDArray[Any]:
    geometry = Geometry(*SIZE, "nearest", "stretch", orientation="ignore", scaled_decode=False)
    return np.asarray(preprocess(Input(geometry, normalisation), content)[0])


@pytest.mark.parametrize("module", sorted(MODES))
def test_every_application_over_every_kind_of_picture(keras: Any, module: str) -> None:
    preprocess_input = getattr(keras.applications, module).preprocess_input
    for name, make in EXACT.items():
        content = make()
        # Keras works in place on what it is given.
        expected = preprocess_input(_loaded(keras, content).copy())
        found = _ours(content, NORMALISATIONS[MODES[module]])
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("filter_", ["bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_load_img_of_another_interpolation_is_a_resize_of_pillow(keras: Any, filter_: str) -> None:
    options = InputOptions("load_img", "raw", resize=f"pillow_{filter_}")  # type: ignore[arg-type]
    spec = resolve_input(options, *SIZE, 3)
    for name, make in EXACT.items():
        content = make()
        image = keras.utils.load_img(io.BytesIO(content), target_size=SIZE, interpolation=filter_)
        expected = np.asarray(keras.utils.img_to_array(image), np.float32)
        found = preprocess(spec, content)[0]
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_no_preprocess_input_of_keras_is_left_out(keras: Any) -> None:
    having = {n for n, m in vars(keras.applications).items() if hasattr(m, "preprocess_input")}
    # Two names for the same functions: resnet50 is resnet, and imagenet_utils is what they call.
    assert having - {"imagenet_utils", "resnet50"} == set(MODES) - {"resnet50"}


def test_cmyk_is_one_step_away_at_most(keras: Any) -> None:
    content = _saved("JPEG", "CMYK", quality=95)
    found = _ours(content, NORMALISATIONS["raw"])
    assert np.abs(found - _loaded(keras, content)).max() <= 1


def test_sixteen_bits_are_scaled_where_keras_clips(keras: Any) -> None:
    cv2 = pytest.importorskip("cv2")
    ramp = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
    content = cv2.imencode(".png", ramp)[1].tobytes()
    assert (_loaded(keras, content)[ramp > 255] == 255).all()
    found = _ours(content, NORMALISATIONS["raw"])
    assert np.abs(found - (ramp / 257)[..., None]).max() <= 1


def _equality(python: str | Path, shared: Path, folder: Path) -> str:
    """Run the benchmark with an interpreter; return its line, fail when a picture differs."""
    images = shared / "data" / "images"
    command = [str(python), str(SCRIPT), "--images", str(images), "--results", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_nearest_is_load_img_on_500_of_500_photos(shared: Path, tmp_path: Path) -> None:
    assert "500 of 500 images equal" in _equality(sys.executable, shared, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["4.11.0.86"])
def test_nearest_is_load_img_on_an_older_opencv(version: str, shared: Path, tmp_path: Path) -> None:
    """In an environment of its own: two OpenCVs can't live in one."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = [f"opencv-python-headless=={version}", "pillow"]
    install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary=:all:", *wanted]
    done = subprocess.run(install, capture_output=True, text=True, env={**os.environ}, timeout=600)
    if done.returncode:
        pytest.skip(f"OpenCV {version} can't be installed: {done.stderr.strip().splitlines()[-1]}")
    line = _equality(python, shared, tmp_path)
    assert line.startswith(f"OpenCV {version.rpartition('.')[0]}: 500 of 500 images equal")
