"""Is a picture blank, and are two of them the same?"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kedge_runtime.head import Floats
from kedge_runtime.image import Pixels

# Levels of 255. JPEG's own noise on one colour is below 1; the plainest of 500 photos has 23.
BLANK = 2.0
SIDE = 16
# Correlation of two thumbnails. Among 500 photos the nearest have 0.84; a photo saved again at JPEG
# quality 20, at half its size or brighter by a tenth has 0.994 and more with itself.
ALIKE = 0.99


@dataclass(frozen=True)
class Look:
    """What is remembered of a picture.

    `digest`: of its decoded pixels, whatever the file. `thumbnail`: float32 [16 * 16 * 3] of mean 0
    and norm 1.
    """

    digest: bytes
    thumbnail: Floats


def is_blank(pixels: Pixels) -> bool:
    """Whether a picture, uint8 [height, width, 3], is of one colour but for noise."""
    return bool(cv2.meanStdDev(pixels)[1].max() < BLANK)


def look(pixels: Pixels) -> Look:
    """Return the look of a picture, uint8 [height, width, 3]."""
    digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16)
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    centred = (small - small.mean()).ravel()
    return Look(digest.digest(), centred / max(float(np.linalg.norm(centred)), 1e-6))


def near_copies(looks: Sequence[Look], others: Sequence[Look]) -> int:
    """Return how many of `looks` are like one of `others`."""
    if not looks or not others:
        return 0
    ours, theirs = (np.stack([one.thumbnail for one in group]) for group in (looks, others))
    return int((ours @ theirs.T > ALIKE).any(axis=1).sum())
