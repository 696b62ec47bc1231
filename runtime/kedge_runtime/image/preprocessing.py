"""Turn an image into the engine's input tensor: converter, check and device share this code.

A byte has 256 values. So normalising and quantising is one look-up table per channel, which is
exact and the same on every machine.
"""

from functools import partial

import numpy as np

from kedge_runtime.arrays import Array, Floats, Pixels
from kedge_runtime.artefact.contract import Contract, Input, Normalisation, Tensor
from kedge_runtime.errors import UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.decode import LIMITS, ImageLimits, read_image
from kedge_runtime.image.geometry import fit_to, reduction
from kedge_runtime.image.objects import Source
from kedge_runtime.image.opencv import cv2
from kedge_runtime.records import shown


@dataclass(frozen=True)
class Luma:
    """ITU-R 601-2 luma in integers: (weights . (R, G, B) + half) >> bits."""

    weights: tuple[int, int, int]
    bits: int
    half: int

    def of(self, colours: Pixels) -> Pixels:
        """Return uint8 [n], the luma of RGB uint8 [n, 3]."""
        sums = colours.astype(np.uint32) @ np.array(self.weights, np.uint32)
        return ((sums + self.half) >> self.bits).astype(np.uint8)


# convert("L") of Pillow (libImaging/Convert.c) rounds; TensorFlow reads a PNG by libpng's
# png_set_rgb_to_gray (pngrtran.c), which cuts.
PILLOW = Luma((19595, 38470, 7471), 16, 1 << 15)
LIBPNG = Luma((9797, 19234, 3737), 15, 0)
RUN = 1 << 16  # pixels that are made grey at once


class Preprocessor:
    """Preprocesses images for one contract's input; the look-up table is built once."""

    def __init__(self, spec: Input, limits: ImageLimits = LIMITS) -> None:
        """Build the table for `spec`; `limits`: what one image may cost."""
        self.spec, self.limits = spec, limits
        self._reduction = partial(reduction, spec.geometry)
        self._dtype = np.dtype(spec.tensor.dtype)
        entries = table(spec.normalisation, spec.tensor)
        # OpenCV 4.6 has no tables of float16, but copies the same bits as int16.
        entries = entries.view(np.int16) if self._dtype == np.float16 else entries
        # One table for all channels takes half the time of three.
        alike = (entries == entries[..., :1]).all()
        self._table = np.ascontiguousarray(entries[..., 0]) if alike else entries
        self._swap = spec.normalisation.colour == "bgr"
        self._grey = spec.normalisation.colour == "grey"
        self._planar = spec.tensor.layout == "nchw"

    def read(self, source: Source) -> Pixels:
        """Return an image's pixels, oriented as the contract states, RGB uint8 [h, w, 3].

        A JPEG much larger than needed is decoded at a half, a quarter or an eighth. An array
        may be [h, w] where the contract is grey.
        """
        if self._grey and isinstance(source, np.ndarray) and source.ndim == 2:
            source = np.repeat(source[..., None], 3, axis=2)
        return read_image(
            source,
            self.spec.geometry.orientation,
            limits=self.limits,
            reduction=self._reduction,
        )

    def tensor(self, pixels: Pixels) -> Array:
        """Return the engine's input for RGB uint8 [h, w, 3], in the contract's shape and dtype."""
        return self.look_up(self.fit(pixels))

    def fit(self, pixels: Pixels) -> Pixels:
        """Return the pixels at the network's size, RGB uint8 [height, width, 3].

        Where the contract is grey, the three channels are made equal before the resize.
        """
        geometry = self.spec.geometry
        luma = LIBPNG if geometry.resize == "tf_bilinear" else PILLOW
        return fit_to(_greyed(pixels, luma) if self._grey else pixels, geometry)

    def look_up(self, fitted: Pixels) -> Array:
        """Return the engine's input for RGB uint8 [height, width, 3] of the network's size."""
        if self._grey:
            values = cv2.LUT(cv2.extractChannel(fitted, 0), self._table).view(self._dtype)
            return values.reshape(self.spec.shape)
        ordered = cv2.cvtColor(fitted, cv2.COLOR_RGB2BGR) if self._swap else fitted
        values = cv2.LUT(ordered, self._table).view(self._dtype)
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self._planar else values)[None]


def _greyed(pixels: Pixels, luma: Luma) -> Pixels:
    """Return the luma of RGB pixels in each of three channels, uint8 [h, w, 3]."""
    colours = pixels.reshape(-1, 3)
    result = np.empty_like(colours)
    for start in range(0, len(colours), RUN):
        result[start : start + RUN] = luma.of(colours[start : start + RUN])[:, None]
    return result.reshape(pixels.shape)


def preprocess(contract: Contract | Input, source: Source) -> Array:
    """Return the input tensor of one image, bit for bit what the engine gets.

    Args:
        contract: A contract, or its input.
        source: A path, encoded bytes, an open binary file, a Pillow image, or an array, uint8
            [height, width, 3] in RGB.

    Returns:
        The tensor in the contract's shape and dtype: [1, height, width, 3] by default.

    Raises:
        ImageError: The image can't be read.
        UsageError: `contract` is none.
    """
    if not isinstance(contract, Contract | Input):
        raise UsageError(f"contract is {shown(contract)}, expected a Contract or its input")
    spec = contract.input if isinstance(contract, Contract) else contract
    preprocessor = Preprocessor(spec)
    return preprocessor.tensor(preprocessor.read(source))


def table(normalisation: Normalisation, tensor: Tensor) -> Array:
    """Return the number of each byte in each channel: [1, 256, channels] in the tensor's dtype.

    The steps are float32 in Keras's order: float tables equal `preprocess_input` bit for bit.
    """
    byte = np.arange(256, dtype=np.float32)[:, None] / np.float32(normalisation.divisor)
    mean, std = np.array([normalisation.mean, normalisation.std], np.float32)
    return quantise((byte - mean) / std, tensor)[None]


def quantise(values: Floats, tensor: Tensor) -> Array:
    """Return real numbers in the tensor's dtype; the shape stays.

    Integers are round(x / scale) + zero_point, saturated.
    """
    if tensor.quantisation is None:
        return values.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    steps = np.rint(values.astype(np.float64) / tensor.quantisation.scale)
    integers = np.clip(steps + tensor.quantisation.zero_point, limits.min, limits.max)
    return np.asarray(integers, tensor.dtype)


def real_numbers(tensor: Tensor) -> Floats | None:
    """Return the real number of each byte of a tensor of int8 or uint8, [256]; else None.

    `table[values.view(np.uint8)]` equals `dequantise(values, tensor)` bit for bit.
    """
    if tensor.dtype not in ("int8", "uint8"):
        return None
    return dequantise(np.arange(256, dtype=np.uint8).view(tensor.dtype), tensor)


def dequantise(values: Array, tensor: Tensor) -> Floats:
    """Return the real numbers, float32, of a tensor's raw values; the shape stays."""
    real = values.astype(np.float32)
    if tensor.quantisation is None:
        return real
    return (real - tensor.quantisation.zero_point) * np.float32(tensor.quantisation.scale)
