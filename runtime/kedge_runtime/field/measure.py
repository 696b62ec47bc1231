"""Measure an image and its answer: a few numbers that move when a camera or its scene changes.

All are measured on the pixels that the model gets, so that a frame of any size and a calibration
image are comparable. None can be turned back into an image.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kedge_runtime.arrays import Array, Floats, Pixels


@dataclass(frozen=True)
class Statistic:
    """One number of a frame.

    `low`, `high`: what less or more of it means, before "than in calibration". `low_cause`,
    `high_cause`: a likely cause, as a question. `mirrored`: the cause where the numbers are
    calibration's with the other sign.
    """

    name: str
    low: str
    high: str
    low_cause: str = ""
    high_cause: str = ""
    mirrored: str = ""


ANSWERS = 3  # the first ones are of the answer, the others of the image
STATISTICS = (
    Statistic("confidence", "less confident", "more confident", "new classes, another view?"),
    Statistic("margin", "closer to the second class", "farther from the second class"),
    Statistic("entropy", "surer", "spread over more classes", "", "new classes, another view?"),
    Statistic("luminance", "darker", "brighter"),
    Statistic("contrast", "flatter", "of more contrast", "fog, dirt, over-exposed?"),
    Statistic("sharpness", "less sharp", "sharper", "out of focus?", "noise?"),
    Statistic("smooth", "noisier", "smoother", "noise?", "out of focus, compressed?"),
    Statistic("fineness", "coarser", "of finer detail", "out of focus, wet?", "noise?"),
    Statistic("centre", "less detailed in the centre", "more detailed in the centre", "moved?"),
    Statistic("red_blue", "bluer", "redder", mirrored="red and blue exchanged?"),
    Statistic("green", "less green", "greener"),
    Statistic("vertical", "darker at the top", "brighter at the top", mirrored="upside down?"),
    Statistic("sky", "less blue at the top", "bluer at the top", mirrored="upside down?"),
    Statistic("saturation", "paler", "more colourful"),
)
NAMES = tuple(statistic.name for statistic in STATISTICS)
CONFIDENCE = NAMES.index("confidence")

SIDE = 16  # of the thumbnail, for colours and their layout
SMOOTH = 4  # levels of 255: differences in a smooth place, JPEG's own noise included
_TINY = 1e-6


def measure(fitted: Pixels, values: tuple[float, float, float]) -> Floats:
    """Return the statistics, float32 [len(STATISTICS)], of a frame of the network's size.

    `fitted`: RGB uint8 [h, w, 3]. `values`: confidence, margin and entropy of its answer.
    """
    return joined(values, image_statistics(fitted))


def image_statistics(fitted: Pixels) -> Floats:
    """Return the statistics of the image alone, float32 [len(STATISTICS) - ANSWERS]."""
    return np.array((*_detail(fitted), *_colour(fitted)), np.float32)


def joined(values: tuple[float, float, float], image: Floats) -> Floats:
    """Return the statistics of an answer and of its image, float32 [len(STATISTICS)]."""
    return np.concatenate([np.array(values, np.float32), image])


def _detail(fitted: Pixels) -> tuple[float, ...]:
    """Return luminance, contrast, sharpness, smooth, fineness and centre."""
    grey = cv2.cvtColor(fitted, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    edges = _edges(grey)
    height, width = edges.shape
    inner = edges[height // 4 : height - height // 4, width // 4 : width - width // 4]
    fine, coarse, middle = map(_mean, (edges, _edges(half), inner))
    rough = cv2.countNonZero(cv2.threshold(edges, SMOOTH, 255, cv2.THRESH_BINARY)[1])
    contrast = float(deviation[0, 0])
    return (
        float(mean[0, 0]),
        contrast,
        fine / (contrast + 1),
        1 - rough / edges.size,
        fine / (coarse + _TINY),
        middle / (fine + _TINY),
    )


def _edges(grey: Array) -> Pixels:
    """Return the larger difference of each pixel from the ones above and to its left."""
    down = cv2.absdiff(grey[1:, 1:], grey[:-1, 1:])
    return np.asarray(cv2.max(down, cv2.absdiff(grey[1:, 1:], grey[1:, :-1])), np.uint8)


def _mean(plane: Pixels) -> float:
    return cv2.norm(plane, cv2.NORM_L1) / plane.size


def _weights() -> Floats:
    """Return the weights of the linear numbers of a thumbnail: red_blue, green, vertical, sky."""
    colours = np.array([[1, 0, -1], [-0.5, 1, -0.5], [1 / 3] * 3, [-1, 0, 1]], np.float32)
    rows = np.repeat([1.0, -1.0], SIDE // 2)
    places = np.stack([np.ones(SIDE), np.ones(SIDE), 2 * rows, 2 * rows])
    weights = places[:, :, None, None] * colours[:, None, None] / SIDE**2
    return np.asarray(np.broadcast_to(weights, (4, SIDE, SIDE, 3)).reshape(4, -1), np.float32)


_WEIGHTS = _weights()


def _colour(fitted: Pixels) -> tuple[float, ...]:
    """Return red_blue, green, vertical, sky and saturation."""
    half = cv2.resize(fitted, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    small = cv2.resize(half, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    linear = _WEIGHTS @ small.ravel().astype(np.float32)
    red, green, blue = cv2.split(small)
    most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return (*linear.tolist(), cv2.mean(most)[0] - cv2.mean(least)[0])
