"""The look-up table against plain arithmetic, and the whole of it against Keras."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Quantisation, Tensor
from kedge_runtime.artefact.kinds import DType
from kedge_runtime.errors import ImageError
from kedge_runtime.image.decode import ImageLimits, read_image
from kedge_runtime.image.preprocessing import Preprocessor, dequantise, preprocess, quantise, table

SIZE = Geometry(24, 32, "nearest", "stretch")
# All values of all channels, in the target's size already.
PIXELS = (
    np.random.default_rng(5).permutation(np.arange(24 * 32 * 3).astype(np.uint8)).reshape(24, 32, 3)
)

NORMALISATIONS = {
    "none": Normalisation(),
    "tf": Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)),
    "torch": Normalisation("rgb", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": Normalisation("bgr", 1.0, (103.939, 116.779, 123.68)),
}


def _by_hand(pixels: NDArray[Any], spec: Normalisation) -> NDArray[np.float32]:
    values = pixels.astype(np.float32)
    if spec.colour == "bgr":
        values = values[..., ::-1]
    values = values / np.float32(spec.divisor)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return np.asarray((values - mean) / std, np.float32)


@pytest.mark.parametrize("mode", NORMALISATIONS)
def test_float32_is_plain_numpy_bit_for_bit(mode: str) -> None:
    spec = NORMALISATIONS[mode]
    found = preprocess(Input(SIZE, spec), PIXELS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], _by_hand(PIXELS, spec))


@pytest.mark.parametrize("mode", NORMALISATIONS)
def test_float16_is_the_rounded_float32(mode: str) -> None:
    spec = NORMALISATIONS[mode]
    found = preprocess(Input(SIZE, spec, Tensor("float16")), PIXELS)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found[0], _by_hand(PIXELS, spec).astype(np.float16))


def _quantised_by_hand(value: float, scale: float, zero: int, low: int, high: int) -> int:
    # Python's round is half to even, as rint is.
    return min(max(round(value / scale) + zero, low), high)


RANGES: dict[DType, tuple[int, int]] = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
}
# The second of each is too fine for the values: it must saturate at both ends, not wrap.
QUANTISATIONS: dict[DType, list[Quantisation]] = {
    "int8": [Quantisation(1 / 127.5, -1), Quantisation(0.001, 3)],
    "uint8": [Quantisation(1 / 127.5, 128), Quantisation(0.001, 100)],
    "int16": [Quantisation(1 / 32767, 0), Quantisation(1e-6, 0)],
}
CASES = [(d, q, m) for d in RANGES for q, m in itertools.product(QUANTISATIONS[d], NORMALISATIONS)]


@pytest.mark.parametrize(("dtype", "quantisation", "mode"), CASES)
def test_integers_are_rounded_and_saturated(
    dtype: DType, quantisation: Quantisation, mode: str
) -> None:
    spec = NORMALISATIONS[mode]
    found = preprocess(Input(SIZE, spec, Tensor(dtype, quantisation)), PIXELS)
    scale, zero = quantisation.scale, quantisation.zero_point
    real = _by_hand(PIXELS, spec).ravel().tolist()
    expected = [_quantised_by_hand(value, scale, zero, *RANGES[dtype]) for value in real]
    assert found.dtype == np.dtype(dtype)
    assert found.ravel().tolist() == expected


@pytest.mark.parametrize("dtype", RANGES)
def test_a_scale_too_fine_saturates_at_both_ends(dtype: DType) -> None:
    tensor = Tensor(dtype, QUANTISATIONS[dtype][1])
    found = table(NORMALISATIONS["tf"], tensor)
    assert (found.min(), found.max()) == RANGES[dtype]


@pytest.mark.parametrize("dtype", RANGES)
def test_dequantise_undoes_quantise_within_half_a_step(dtype: DType) -> None:
    tensor = Tensor(dtype, QUANTISATIONS[dtype][0])
    assert tensor.quantisation is not None
    scale = tensor.quantisation.scale
    low, high = [(limit - tensor.quantisation.zero_point) * scale for limit in RANGES[dtype]]
    values = np.random.default_rng(2).uniform(low, high, 5000).astype(np.float32)
    back = dequantise(quantise(values, tensor), tensor)
    assert back.dtype == np.float32
    assert np.abs(back - values).max() <= scale * (0.5 + 1e-3)


@pytest.mark.parametrize("dtype", RANGES)
def test_quantise_undoes_dequantise_exactly(dtype: DType) -> None:
    tensor = Tensor(dtype, QUANTISATIONS[dtype][0])
    low, high = RANGES[dtype]
    every = np.arange(low, high + 1).astype(dtype)
    np.testing.assert_array_equal(quantise(dequantise(every, tensor), tensor), every)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_pass_dequantise_as_they_are(dtype: DType) -> None:
    values = np.array([0.5, -2.0], dtype)
    assert dequantise(values, Tensor(dtype)).tolist() == [0.5, -2.0]
    assert dequantise(values, Tensor(dtype)).dtype == np.float32


TENSORS = [
    Tensor(),
    Tensor("float16"),
    *(Tensor(dtype, QUANTISATIONS[dtype][0]) for dtype in RANGES),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda tensor: tensor.dtype)
@pytest.mark.parametrize("mode", ["torch", "caffe"])
def test_nchw_is_nhwc_transposed_and_both_are_contiguous(mode: str, tensor: Tensor) -> None:
    spec = NORMALISATIONS[mode]
    planar = Tensor(tensor.dtype, tensor.quantisation, "nchw")
    first = preprocess(Input(SIZE, spec, tensor), PIXELS)
    second = preprocess(Input(SIZE, spec, planar), PIXELS)
    assert first.shape == (1, 24, 32, 3)
    assert second.shape == (1, 3, 24, 32)
    np.testing.assert_array_equal(second, first.transpose(0, 3, 1, 2))
    assert first.flags.c_contiguous
    assert second.flags.c_contiguous


def test_bgr_takes_mean_and_std_in_its_own_order() -> None:
    red = np.zeros((24, 32, 3), np.uint8)
    red[..., 0] = 200
    spec = Normalisation("bgr", 1.0, (1.0, 2.0, 3.0), (1.0, 2.0, 4.0))
    found = preprocess(Input(SIZE, spec), red)
    assert found[0, 0, 0].tolist() == [-1.0, -1.0, (200 - 3) / 4]


def test_the_callers_pixels_are_not_written_to() -> None:
    before = PIXELS.copy()
    for mode in NORMALISATIONS:
        preprocess(Input(SIZE, NORMALISATIONS[mode]), PIXELS)
    np.testing.assert_array_equal(PIXELS, before)


KERAS_MODES = ("tf", "torch", "caffe")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_nearest_stretch_is_keras_load_img_and_preprocess_input(shared: Path) -> None:
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    from keras.src.applications.imagenet_utils import preprocess_input

    photos = sorted((shared / "data" / "images").rglob("*.JPEG"))[:40]
    assert len(photos) == 40
    geometry = Geometry(224, 192, "nearest", "stretch", orientation="ignore")
    for photo in photos:
        image = keras.utils.load_img(photo, target_size=(224, 192))
        for mode in KERAS_MODES:
            # Keras works in place on what it is given.
            values = keras.utils.img_to_array(image)[None].copy()
            expected = preprocess_input(values, data_format="channels_last", mode=mode)
            found = preprocess(Input(geometry, NORMALISATIONS[mode]), photo)
            np.testing.assert_array_equal(found, expected, err_msg=f"{photo.name} {mode}")


@pytest.mark.parametrize(("zero_point", "kept", "step"), [(127, 192, -1), (128, 64, 1)])
def test_bytes_on_a_rounding_tie_are_as_the_docs_say(zero_point: int, kept: int, step: int) -> None:
    """docs/interop.md: byte / 127.5 - 1 with a scale of 1/127.5 lies half way for every byte."""
    tensor = Tensor("uint8", Quantisation(float(np.float32(1 / 127.5)), zero_point))
    found = table(NORMALISATIONS["tf"], tensor)[0, :, 0].astype(int) - np.arange(256)
    assert {int(each) for each in found} == {0, step}
    assert int((found == 0).sum()) == kept
    mean = round(zero_point / 127.5, 7)
    as_they_are = table(Normalisation("rgb", 127.5, (mean,) * 3), tensor)[0, :, 0]
    np.testing.assert_array_equal(as_they_are, np.arange(256))


def _jpeg(height: int, width: int, orientation: int = 1) -> bytes:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = orientation
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.dstack([rows * 3, columns * 2, rows + columns]).astype(np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_large_jpeg_comes_at_a_part_of_its_size() -> None:
    """The plan hands its geometry's reduction to the decoder."""
    content = _jpeg(480, 640)
    geometry = Geometry(24, 32, "pyramid", "stretch")
    assert Preprocessor(Input(geometry, Normalisation())).read(content).shape == (60, 80, 3)
    whole = Geometry(24, 32, "pyramid", "stretch", scaled_decode=False)
    assert Preprocessor(Input(whole, Normalisation())).read(content).shape == (480, 640, 3)


@pytest.mark.parametrize(("orientation", "shape"), [("exif", (64, 48, 3)), ("ignore", (48, 64, 3))])
def test_a_picture_is_turned_as_the_contract_says(orientation: Any, shape: tuple[int, ...]) -> None:
    geometry = Geometry(48, 64, "nearest", "stretch", orientation=orientation)
    plan = Preprocessor(Input(geometry, Normalisation()))
    assert plan.read(_jpeg(48, 64, orientation=6)).shape == shape


def test_a_plan_has_its_own_limits() -> None:
    content = _jpeg(48, 64)
    plan = Preprocessor(Input(SIZE, Normalisation()), ImageLimits(pixels=48 * 64 - 1))
    assert read_image(content).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="allowed are 3071 in all"):
        plan.read(content)
