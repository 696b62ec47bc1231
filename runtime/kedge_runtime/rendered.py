"""Images that kedge draws where none are given: smooth colours with shapes on them.

They are no photos. They vary in colour, size and aspect ratio, so that a golden set made from them
holds decoding, resizing, cropping and normalising; how good a model is they cannot tell.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.image import Pixels

COUNT = 24
# The sides of an image as multiples of the network's: wide, tall, square.
ASPECTS = ((1.3, 1.9), (1.8, 1.25), (1.5, 1.5))
SHAPES = 5


def rendered(height: int, width: int, count: int = COUNT, seed: int = 0) -> list[Pixels]:
    """Return `count` images, RGB uint8, each larger than `height` x `width`; by the seed alone."""
    random = np.random.default_rng(seed)
    sides = (ASPECTS[i % len(ASPECTS)] for i in range(count))
    return [_image(random, round(height * tall), round(width * wide)) for tall, wide in sides]


def _image(random: np.random.Generator, height: int, width: int) -> Pixels:
    # Four corners' colours, blended: every channel takes values of its own.
    corners = random.integers(0, 256, (2, 2, 3)).astype(np.float32)
    canvas = np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR))
    image = np.ascontiguousarray(canvas.clip(0, 255).astype(np.uint8))
    for _ in range(SHAPES):
        _shape(random, image)
    return image


def _shape(random: np.random.Generator, image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    colour = tuple(map(int, random.integers(0, 256, 3)))
    centre = (int(random.integers(width)), int(random.integers(height)))
    radius = max(1, int(min(height, width) * random.uniform(0.05, 0.35)))
    if random.random() < 0.5:
        cv2.circle(image, centre, radius, colour, -1)
    else:
        corner = (centre[0] + radius, centre[1] + max(1, radius // 2))
        cv2.rectangle(image, centre, corner, colour, -1)
