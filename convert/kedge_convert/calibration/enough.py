"""Measure whether the calibration images are enough: are the activations' ranges stable?

A range over few images is too narrow for others. How much it still grows with every doubling of
the images says whether more of them would change it. Ranges are those of the float program.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kedge_convert.calibration.finding import CalibrationFinding, named
from kedge_convert.export import tflite_static
from kedge_runtime.arrays import Floats
from kedge_runtime.errors import counted

DRAWS = 20
# Growth by the last doubling: steps that are a twentieth coarser cost 0.4 dB.
LIMIT = 0.05
LEAST = 8  # images, for two doublings
# An image is odd if it alone goes so far beyond 95 % of the images, in such a share of activations.
BEYOND, ODD = 1.25, 0.2


@dataclass(frozen=True)
class ImageRanges:
    """The least and the greatest value of each activation in each image, [images, tensors]."""

    low: Floats
    high: Floats

    def widths(self, images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the width of each activation's range over some images, zero included."""
        low, high = self.low[images].min(axis=0), self.high[images].max(axis=0)
        return np.asarray(np.maximum(high, 0) - np.minimum(low, 0), np.float64)


def observe(content: bytes, images: Iterable[Floats]) -> ImageRanges:
    """Run a float TFLite program over images, [1, h, w, c] each."""
    limits: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name, value in tflite_static.observed(content, images):
        limits[name].append((float(value.min()), float(value.max())))
    values = np.array(list(limits.values()), np.float32)
    return ImageRanges(values[..., 0].T, values[..., 1].T)


def growth(ranges: ImageRanges, count: int, seed: int = 0) -> float:
    """Return by how much the ranges of `count` images are wider than those of half as many.

    A share; the mean over activations and random draws of both from all images.
    """
    rng, total = np.random.default_rng(seed), len(ranges.low)
    draws = [rng.permutation(total)[:count] for _ in range(DRAWS)]
    whole = np.mean([ranges.widths(drawn) for drawn in draws], axis=0)
    half = np.mean([ranges.widths(drawn[: count // 2]) for drawn in draws], axis=0)
    varied = half > 0
    return float((whole[varied] / half[varied]).mean() - 1) if varied.any() else 0.0


def needed(last: float, before: float, count: int) -> int | None:
    """Return how many images would bring the growth to LIMIT, if it falls as by the last doubling.

    None where it doesn't fall.
    """
    fall = last / before if before > 0 else 1.0
    if fall >= 1:
        return None
    doublings = math.ceil(math.log(LIMIT / last) / math.log(fall))
    return int(count * 2**doublings)


def finding(ranges: ImageRanges) -> CalibrationFinding:
    """Return whether the images are enough."""
    count = len(ranges.low)
    if count < LEAST:
        text = f"{counted(count, 'image')} say nothing of the stability of ranges"
        return CalibrationFinding("enough", "problem", text, "add images")
    last, before = growth(ranges, count), growth(ranges, count // 2)
    result = f"the last doubling, to {count} images, widens the ranges by {last:.1%}"
    if last <= LIMIT:
        return CalibrationFinding("enough", "ok", result)
    more = needed(last, before, count)
    remedy = f"calibrate with about {more} images" if more else "add many more images"
    return CalibrationFinding("enough", "problem", result, f"{remedy} (--calibrate-count)")


def odd(ranges: ImageRanges, paths: Sequence[Path]) -> CalibrationFinding:
    """Return the images that go far beyond the others' values, the farthest first."""
    widths = np.maximum(ranges.high, 0) - np.minimum(ranges.low, 0)
    usual = np.quantile(widths, 0.95, axis=0)
    shares = (widths > BEYOND * usual).mean(axis=1)
    found = tuple(paths[i] for i in np.argsort(-shares, kind="stable") if shares[i] > ODD)
    if not found:
        return CalibrationFinding("odd images", "ok", "none")
    result = f"{len(found)}: {named(found)}"
    remedy = "look at them: an image unlike the others widens the ranges, and steps get coarser"
    return CalibrationFinding("odd images", "note", result, remedy, found)
