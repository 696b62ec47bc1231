"""Faults of a camera, for `field.py`: each changes an image as the fault would.

A fault has a ladder of strengths; `field.py` takes the weakest one that costs 5 points of accuracy
on images that are not reported. New classes are no change of an image: see `field.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from kedge_runtime.arrays import Pixels

Apply = Callable[[Pixels, float, np.random.Generator], Pixels]
LINES = 256  # pixels of the short side for which strengths in pixels are meant


def dark(image: Pixels, stops: float, _: np.random.Generator) -> Pixels:
    """Expose `stops` less."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=2.0**-stops), np.uint8)


def bright(image: Pixels, stops: float, _: np.random.Generator) -> Pixels:
    """Expose `stops` more; what is too bright is white."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=2.0**stops), np.uint8)


def blur(image: Pixels, radius: float, _: np.random.Generator) -> Pixels:
    """Blur by a Gauss of a radius in pixels of 256 lines."""
    sigma = radius * min(image.shape[:2]) / LINES
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def noise(image: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Add normal noise of a deviation in bytes, in grains of a pixel of 256 lines."""
    height, width = image.shape[:2]
    grain = max(1.0, min(height, width) / LINES)
    grains = rng.normal(0, deviation, (int(height / grain), int(width / grain), 3))
    spread = cv2.resize(grains.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(np.clip(image + spread, 0, 255), np.uint8)


def jpeg(image: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    """Save as JPEG of 256 lines."""
    scale = min(1.0, LINES / min(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)


def exchanged(image: Pixels, _: float, __: np.random.Generator) -> Pixels:
    """Exchange red and blue."""
    return np.ascontiguousarray(image[..., ::-1])


def upside_down(image: Pixels, _: float, __: np.random.Generator) -> Pixels:
    """Turn by half a turn."""
    return np.ascontiguousarray(image[::-1, ::-1])


def crop(image: Pixels, share: float, _: np.random.Generator) -> Pixels:
    """Keep the upper left corner, a share of each side."""
    height, width = (int(side * share) for side in image.shape[:2])
    return np.ascontiguousarray(image[:height, :width])


def rain(image: Pixels, drops: float, rng: np.random.Generator) -> Pixels:
    """Put drops on the lens: each shows its surroundings upside down, small and blurred."""
    height, width = image.shape[:2]
    side = min(height, width)
    soft, out = cv2.GaussianBlur(image, (0, 0), side / 40), image.copy()
    for _ in range(int(drops)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        radius = int(side * rng.uniform(0.02, 0.08))
        top, left = max(0, y - radius), max(0, x - radius)
        bottom, right = min(height, y + radius), min(width, x + radius)
        seen = soft[
            max(0, y - 3 * radius) : y + 3 * radius, max(0, x - 3 * radius) : x + 3 * radius
        ]
        turned = np.ascontiguousarray(seen[::-1, ::-1])
        small = cv2.resize(turned, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        cover = np.zeros((height, width), np.uint8)
        cv2.circle(cover, (x, y), radius, 255, -1)
        wet = cover[top:bottom, left:right] > 0
        out[top:bottom, left:right][wet] = small[wet]
    return out


@dataclass(frozen=True)
class Fault:
    """A fault, and its strengths from weak to strong."""

    apply: Apply
    strengths: tuple[float, ...]


FAULTS = {
    "dark": Fault(dark, (1, 2, 3)),
    "bright": Fault(bright, (0.7, 1, 1.5)),
    "blur": Fault(blur, (1, 1.5, 2)),
    "noise": Fault(noise, (10, 20, 30)),
    "jpeg quality 5": Fault(jpeg, (5,)),
    "red-blue exchanged": Fault(exchanged, (0,)),
    "upside down": Fault(upside_down, (0,)),
    "wrong crop": Fault(crop, (0.8, 0.7, 0.6)),
    "rain on the lens": Fault(rain, (10, 20, 40)),
}
