"""Resample with Pillow's filters, byte for byte, without Pillow.

The arithmetic is that of libImaging/Resample.c: integer weights with 22 bits after the point, one
pass over the columns and one over the rows, each rounded to bytes.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Doubles, Pixels
from kedge_runtime.artefact.kinds import Resize
from kedge_runtime.errors import ImageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.opencv import cv2

Span = tuple[float, float]  # of the source, in pixels
Window = tuple[int, int]  # of the result: the first pixel, and how many

BITS = 22
PRECISION = 1 << BITS
# The number of weights grows with the side; no JPEG is longer.
MAX_SIDE = 1 << 16
CACHE = 1 << 16  # values of 4 bytes that are worked on at once


@dataclass(frozen=True)
class Filter:
    """A filter: `weight` by the distance in pixels of the smaller image, 0 beyond `support`."""

    weight: Callable[[Doubles], Doubles]
    support: float


def _box(x: Doubles) -> Doubles:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: Doubles) -> Doubles:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _hamming(x: Doubles) -> Doubles:
    x = np.abs(x) * math.pi
    # Pillow's two constants are floats.
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * _each(math.cos, x)
    return np.where(x < math.pi, _sinc(x) * window, 0.0)


def _bicubic(x: Doubles) -> Doubles:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: Doubles) -> Doubles:
    inside = (x >= -3) & (x < 3)
    return np.where(inside, _sinc(x * math.pi) * _sinc(x / 3 * math.pi), 0.0)


def _sinc(x: Doubles) -> Doubles:
    zero = x == 0
    return np.where(zero, 1.0, _each(math.sin, x) / np.where(zero, 1.0, x))


def _each(function: Callable[[float], float], x: Doubles) -> Doubles:
    # numpy's own sin and cos round otherwise with other vector units; the C library is Pillow's.
    return np.fromiter(map(function, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)


FILTERS: Final[dict[Resize, Filter]] = {
    "pillow_box": Filter(_box, 0.5),
    "pillow_bilinear": Filter(_bilinear, 1.0),
    "pillow_hamming": Filter(_hamming, 1.0),
    "pillow_bicubic": Filter(_bicubic, 2.0),
    "pillow_lanczos": Filter(_lanczos, 3.0),
}


@dataclass(frozen=True)
class Kernel:
    """The source pixels of each result pixel: `weights` [pixels, taps] apply from `first` to `end`.

    `first`, `end`: [pixels], positions in the source; `end` is exclusive.
    """

    first: NDArray[np.intp]
    end: NDArray[np.intp]
    weights: NDArray[np.int32]


def resample(
    pixels: Pixels,
    height: int,
    width: int,
    method: Resize,
    *,
    box: tuple[Span, Span] | None = None,
    window: tuple[Window, Window] | None = None,
) -> Pixels:
    """Return `Image.resize((width, height), method, box)` of a uint8 [h, w, 3] image.

    `box`: the source's rows and columns to use, in fractions of pixels. `window`: the rows and
    columns of the result to compute, each as start and length. Raises ImageError for an image with
    more than 65536 pixels a side.
    """
    if max(pixels.shape) > MAX_SIDE:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ImageError(f"an image of {size}: {method} takes {MAX_SIDE} a side; shrink it first")
    tall, wide = window or ((0, height), (0, width))
    rows, columns = box or ((0, pixels.shape[0]), (0, pixels.shape[1]))
    down = _kernel(pixels.shape[0], _single(rows), height, tall, method)
    across = _kernel(pixels.shape[1], _single(columns), width, wide, method)
    fewer = pixels.shape[0] - height, pixels.shape[1] - width
    # Pillow 13 starts with the rows where that is much less work; Pillow 12 never does.
    if fewer[0] > max(0, 2 * fewer[1]):
        return _turn(_blend(_turn(_blend(pixels, down)), across))
    low, high = int(down.first[0]), int(down.end[-1])  # no result needs the other rows
    down = replace(down, first=down.first - low, end=down.end - low)
    return _blend(_turn(_blend(_turn(pixels[low:high]), across)), down)


def _turn(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.transpose(pixels), np.uint8)


def _blend(pixels: Pixels, kernel: Kernel) -> Pixels:
    """Return uint8 [pixels of the kernel, w, 3]: sums of rows, rounded and held to 0..255."""
    source = pixels.reshape(len(pixels), -1)
    result = np.empty((len(kernel.first), source.shape[1]), np.uint8)
    step = max(1, CACHE // max(source.shape[0], result.shape[0]))
    for at in range(0, source.shape[1], step):
        values = source[:, at : at + step].astype(np.int32)
        sums = np.full((len(result), values.shape[1]), PRECISION >> 1, np.int32)
        for tap in range(kernel.weights.shape[1]):
            rows = np.minimum(kernel.first + tap, kernel.end - 1)
            sums += values[rows] * kernel.weights[:, tap, None]
        result[:, at : at + step] = np.clip(sums >> BITS, 0, 255)
    return result.reshape(len(result), -1, 3)


def _single(span: Span) -> Span:
    # Pillow hands a box to C in single precision.
    return float(np.float32(span[0])), float(np.float32(span[1]))


@lru_cache(maxsize=64)
def _kernel(size: int, span: Span, target: int, window: Window, method: Resize) -> Kernel:
    """Return the weights of the results in `window` for `span` of `size` pixels to `target`."""
    chosen = FILTERS[method]
    if span == (0, size) and size == target:
        return _identity(window)
    scale = float(np.float32(span[1]) - np.float32(span[0])) / target
    stretch = max(scale, 1.0)
    support = chosen.support * stretch
    centres = span[0] + (np.arange(window[0], sum(window)) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.intp), 0)
    end = np.minimum((centres + support + 0.5).astype(np.intp), size)
    taps = first[:, None] + np.arange((end - first).max())
    weights = chosen.weight((taps - centres[:, None] + 0.5) * (1.0 / stretch))
    weights[taps >= end[:, None]] = 0
    return Kernel(first, end, _fixed(weights))


def _identity(window: Window) -> Kernel:
    """Return a kernel that copies: Pillow skips a pass that changes nothing."""
    pixels = np.arange(window[0], sum(window))
    return Kernel(pixels, pixels + 1, np.full((len(pixels), 1), PRECISION, np.int32))


def _fixed(weights: Doubles) -> NDArray[np.int32]:
    """Return integer weights that sum up to about PRECISION, rounded half away from zero."""
    # In order: a sum by halves would round otherwise.
    total = np.add.accumulate(weights, axis=1)[:, -1:]
    shares = np.divide(weights, total, where=total != 0, out=weights.copy())
    return (shares * PRECISION + np.copysign(0.5, shares)).astype(np.int32)
