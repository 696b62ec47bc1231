"""Scale and crop pixels to the network's size: one function per resize method and per fit.

Integer arithmetic is used where the method allows it (`nearest`, `bilinear`, `pyramid`, `pillow_*`)
and numpy's float32 in a fixed order for `tf_bilinear`, so an image gives the same bytes on every
machine; OpenCV's `area` differs in one value of 10 000 between x86-64 and arm64.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from kedge_runtime.arrays import Floats, Pixels, Places
from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.artefact.kinds import PILLOW_RESIZES, Fit, Resize
from kedge_runtime.image.opencv import cv2

Size = tuple[int, int]  # height, width in pixels

LETTERBOX_GREY = 127
# A centre crop cuts the ends of longer images away, so they are cut before the resize.
MAX_ASPECT = 4


def fit_to(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Fit uint8 [h, w, 3] to uint8 [geometry.height, geometry.width, 3]."""
    return FITS[geometry.fit](pixels, geometry)


def resize(pixels: Pixels, height: int, width: int, method: Resize) -> Pixels:
    """Scale uint8 [h, w, 3] to uint8 [height, width, 3]."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(RESIZES[method](pixels, height, width), np.uint8)


def _nearest(pixels: Pixels, height: int, width: int) -> Pixels:
    # Four times as fast as indexing both at once; cv2.remap is faster still, but ends at 32767.
    rows = pixels.take(nearest_index(pixels.shape[0], height), axis=0)
    return rows.take(nearest_index(pixels.shape[1], width), axis=1)


@lru_cache(maxsize=64)
def nearest_index(size: int, target: int) -> Places:
    """Return the source index of each target pixel, as Pillow's NEAREST picks it.

    Pillow adds up positions in a double (libImaging/Geometry.c, ImagingScaleAffine); OpenCV's own
    nearest methods round elsewhere. The sum is run in order, as a product would round differently.
    """
    step = size / target
    positions = np.add.accumulate(np.concatenate([[step * 0.5], np.full(target - 1, step)]))
    return np.minimum(positions.astype(np.intp), size - 1)


def _bilinear(pixels: Pixels, height: int, width: int) -> Pixels:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)  # type: ignore[return-value]


def _tf_bilinear(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize as `tf.image.resize`, rounded: OpenCV's weights of 1/256 are up to 1.3 steps off."""
    top, bottom, down = _neighbours(pixels.shape[0], height)
    left, right, across = _neighbours(pixels.shape[1], width)

    def between(rows: Places) -> Floats:
        near = pixels[rows[:, None], left].astype(np.float32)
        return near + (pixels[rows[:, None], right] - near) * across[:, None]

    upper = between(top)
    return np.asarray(np.rint(upper + (between(bottom) - upper) * down[:, None, None]), np.uint8)


@lru_cache(maxsize=64)
def _neighbours(size: int, target: int) -> tuple[Places, Places, Floats]:
    """Return the two source pixels of each target pixel, and the second's share (float32)."""
    step, half = np.float32(size) / np.float32(target), np.float32(0.5)
    places = (np.arange(target, dtype=np.float32) + half) * step - half
    lower = np.floor(places)
    first = np.maximum(lower.astype(np.intp), 0)
    second = np.minimum(np.ceil(places).astype(np.intp), size - 1)
    return first, second, places - lower


def _area(pixels: Pixels, height: int, width: int) -> Pixels:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _pillow(method: Resize, pixels: Pixels, height: int, width: int, **region: Any) -> Pixels:
    # Imported here: most models use OpenCV's methods.
    from kedge_runtime.image.pillow_filters import resample

    return resample(pixels, height, width, method, **region)


def _pyramid(pixels: Pixels, height: int, width: int) -> Pixels:
    """Halve by means while the result stays above the target, then resize bilinearly: no aliasing.

    Each side is halved as often as it needs, since `stretch` scales them differently.
    """
    while (by := _halvings(pixels.shape, (height, width))) != (1, 1):
        rows, columns = pixels.shape[0] // by[0], pixels.shape[1] // by[1]
        pixels = _bilinear(pixels[: by[0] * rows, : by[1] * columns], rows, columns)
    return _bilinear(pixels, height, width)


def _halvings(shape: tuple[int, ...], target: tuple[int, int]) -> tuple[int, int]:
    return 1 + (shape[0] >= 2 * target[0]), 1 + (shape[1] >= 2 * target[1])


RESIZES: dict[Resize, Callable[[Pixels, int, int], Pixels]] = {
    "nearest": _nearest,
    "bilinear": _bilinear,
    "pyramid": _pyramid,
    "area": _area,
    "tf_bilinear": _tf_bilinear,
    **{method: partial(_pillow, method) for method in PILLOW_RESIZES},
}


def _cover(size: Size, geometry: Geometry) -> Size:
    """Return the smallest size of the image whose centre `crop_fraction` covers the target."""
    height, width = _cut(size)
    covered_h = _round(geometry.height / geometry.crop_fraction)
    covered_w = _round(geometry.width / geometry.crop_fraction)
    scale = max(covered_h / height, covered_w / width)
    return max(covered_h, _round(height * scale)), max(covered_w, _round(width * scale))


def _target(size: Size, geometry: Geometry) -> Size:
    return geometry.height, geometry.width


def _contain(size: Size, geometry: Geometry) -> Size:
    """Return the largest size of the image that fits into the target."""
    scale = min(geometry.height / size[0], geometry.width / size[1])
    height = min(geometry.height, max(1, _round(size[0] * scale)))
    width = min(geometry.width, max(1, _round(size[1] * scale)))
    return height, width


def _widest(size: Size, geometry: Geometry) -> tuple[float, float]:
    """Return the largest rows and columns of the target's aspect ratio, as ImageOps.fit does."""
    height, width = size
    ratio = geometry.width / geometry.height
    if width / height == ratio:
        return height, width
    return (height, ratio * height) if width / height > ratio else (width / ratio, width)


def _whole(size: Size, geometry: Geometry) -> Size:
    """Return the same in whole pixels, computed in float32 as Keras's smart_resize does."""
    height, width = size
    rows = np.float32(width * geometry.height) / np.float32(geometry.width)
    columns = np.float32(height * geometry.width) / np.float32(geometry.height)
    return max(1, min(height, int(rows))), max(1, min(width, int(columns)))


def _filled(size: Size, geometry: Geometry) -> Size:
    """Return the smallest size that covers the target, rounded up."""
    scale = max(geometry.height / size[0], geometry.width / size[1])
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def _shorter(size: Size, geometry: Geometry) -> Size:
    """Return torchvision's size: the short side as the crop's long one needs it, the other cut."""
    short = round(max(geometry.height, geometry.width) / geometry.crop_fraction)
    long = int(short * max(size) / min(size))
    return (long, short) if size[1] <= size[0] else (short, long)


# The size that an image of a given size is resized to, before it is cropped or padded.
SCALED: dict[Fit, Callable[[Size, Geometry], Size]] = {
    "crop": _cover,
    "stretch": _target,
    "letterbox": _contain,
    "keras_crop": _filled,
    "pillow_fit": _filled,
    "torchvision_crop": _shorter,
}


def reduction(geometry: Geometry, height: int, width: int) -> int:
    """Return 1, 2, 4 or 8: the divisor that a JPEG decoder may apply to the sides in pixels.

    The result is never smaller than the size that `fit_to` resizes to. EXIF may swap the sides and
    isn't known yet, so both orders must suffice. `nearest` picks single pixels: never reduced.
    """
    if not geometry.scaled_decode or geometry.resize == "nearest":
        return 1
    sizes = [(height, width), (width, height)]
    orders = sizes[:1] if geometry.orientation == "ignore" else sizes
    return next(
        by for by in (8, 4, 2, 1) if by == 1 or all(_suffices(geometry, s, by) for s in orders)
    )


def _suffices(geometry: Geometry, size: Size, by: int) -> bool:
    height, width = SCALED[geometry.fit](size, geometry)
    return size[0] >= by * height and size[1] >= by * width


def _crop(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Scale until the centre `crop_fraction` just covers the target, then cut the target out."""
    height, width = _cover(_size(pixels), geometry)
    scaled = resize(_centre(pixels, *_cut(_size(pixels))), height, width, geometry.resize)
    return _centre(scaled, geometry.height, geometry.width)


def _stretch(pixels: Pixels, geometry: Geometry) -> Pixels:
    return resize(pixels, geometry.height, geometry.width, geometry.resize)


def _letterbox(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Scale the whole image into the target and fill what stays free with grey."""
    height, width = _contain(_size(pixels), geometry)
    canvas = np.full((geometry.height, geometry.width, 3), LETTERBOX_GREY, np.uint8)
    _centre(canvas, height, width)[:] = resize(pixels, height, width, geometry.resize)
    return canvas


def _keras_crop(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Cut the largest centre of the target's aspect ratio out, then scale it."""
    cut = _centre(pixels, *_whole(_size(pixels), geometry))
    return resize(cut, geometry.height, geometry.width, geometry.resize)


def _pillow_fit(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Scale the centre of the target's aspect ratio, in fractions of pixels: ImageOps.fit."""
    spans = map(_middle, _size(pixels), _widest(_size(pixels), geometry))
    box = (next(spans), next(spans))
    return _pillow(geometry.resize, pixels, geometry.height, geometry.width, box=box)


def _middle(side: int, length: float) -> tuple[float, float]:
    start = (side - length) * 0.5
    return start, start + length


def _torchvision_crop(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Apply torchvision's Resize(short side) and CenterCrop; compute only the crop."""
    height, width = _shorter(_size(pixels), geometry)
    # Python's round goes to the even number at a half, and so does torchvision's corner.
    top, left = round((height - geometry.height) / 2), round((width - geometry.width) / 2)
    window = ((top, geometry.height), (left, geometry.width))
    return _pillow(geometry.resize, pixels, height, width, window=window)


FITS: dict[Fit, Callable[[Pixels, Geometry], Pixels]] = {
    "crop": _crop,
    "stretch": _stretch,
    "letterbox": _letterbox,
    "keras_crop": _keras_crop,
    "pillow_fit": _pillow_fit,
    "torchvision_crop": _torchvision_crop,
}


def _size(pixels: Pixels) -> Size:
    return pixels.shape[0], pixels.shape[1]


def _cut(size: Size) -> Size:
    """Return the size of an image after its ends beyond MAX_ASPECT are cut away."""
    longest = MAX_ASPECT * min(size)
    return min(size[0], longest), min(size[1], longest)


def _centre(pixels: Pixels, height: int, width: int) -> Pixels:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _round(value: float) -> int:
    return math.floor(value + 0.5)
