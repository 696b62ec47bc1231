"""Measure an image and its answer: a few numbers that move when a camera or its scene changes.

All are measured on the pixels that the model gets, so that a frame of any size and a calibration
image are comparable. None can be turned back into an image.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kedge_runtime.arrays import Floats, Pixels


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
    Statistic("red_blue", "bluer", "redder", mirrored="red and blue exchanged?"),
    Statistic("green", "less green", "greener"),
    Statistic("saturation", "paler", "more colourful"),
    Statistic("vertical", "darker at the top", "brighter at the top", mirrored="upside down?"),
    Statistic("sky", "less blue at the top", "bluer at the top", mirrored="upside down?"),
    Statistic("centre", "less detailed in the centre", "more detailed in the centre", "moved?"),
)
NAMES = tuple(statistic.name for statistic in STATISTICS)

SIDE = 16  # of the thumbnail, for colours and their layout
SMOOTH = 4  # steps of a byte: the Laplacian of a smooth place, JPEG's own noise included
# The centre of an image, half its sides.
_INNER = slice(SIDE // 4, SIDE - SIDE // 4)
_TINY = 1e-6


def measure(fitted: Pixels, values: tuple[float, float, float]) -> Floats:
    """Return the statistics, float32 [len(STATISTICS)], of a frame of the network's size.

    `fitted`: RGB uint8 [h, w, 3]. `values`: confidence, margin and entropy of its answer.
    """
    return np.array((*values, *_detail(fitted), *_colour(fitted)), np.float32)


def _detail(fitted: Pixels) -> tuple[float, ...]:
    """Return luminance, contrast, sharpness, smooth and fineness."""
    grey = cv2.cvtColor(fitted, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    edges = cv2.convertScaleAbs(cv2.Laplacian(grey, cv2.CV_16S))
    fine = cv2.norm(edges, cv2.NORM_L1) / grey.size
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    coarse = cv2.norm(cv2.Laplacian(half, cv2.CV_16S), cv2.NORM_L1) / half.size
    rough = cv2.countNonZero(cv2.threshold(edges, SMOOTH, 255, cv2.THRESH_BINARY)[1])
    contrast = float(deviation[0, 0])
    return (
        float(mean[0, 0]),
        contrast,
        fine / (contrast + 1),
        1 - rough / grey.size,
        fine / (coarse + _TINY),
    )


def _colour(fitted: Pixels) -> tuple[float, ...]:
    """Return red_blue, green, saturation, vertical, sky and centre."""
    small = cv2.resize(fitted, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    light, warm = small.mean(axis=2), red - blue
    half = SIDE // 2
    detail = np.abs(light - cv2.blur(light, (3, 3)))
    return (
        float(warm.mean()),
        float((green - (red + blue) / 2).mean()),
        float((small.max(axis=2) - small.min(axis=2)).mean()),
        float(light[:half].mean() - light[half:].mean()),
        float(warm[half:].mean() - warm[:half].mean()),
        float(detail[_INNER, _INNER].mean() / (detail.mean() + _TINY)),
    )
