"""Draw the demo's images: one pictogram on a busy ground, degraded as a cheap camera would."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_models.demo.shapes import CANVAS, SHAPES, mask

Picture = NDArray[np.uint8]
Canvas = NDArray[np.float32]

NAMES = tuple(SHAPES)
CONTRAST = 120.0
"""Least distance of a pictogram's colour from its ground's colours, in bytes (Euclidean, RGB)."""


class _Palette(NamedTuple):
    """Three RGB colours, float32 (3,), 0 to 255: two of the ground and the pictogram's own."""

    ground: Canvas
    second: Canvas
    ink: Canvas


def render(index: int, rng: np.random.Generator, size: int = 160) -> Picture:
    """Render one picture of class `index` (0 to 9): RGB, uint8, (height, width, 3).

    Height and width are drawn separately, from 3/4 to 3/2 of `size`. The pictogram lies within, or
    a little over the edge of, the centre square of 7/8 of the short side.
    """
    height, width = (int(side) for side in rng.integers(size * 3 // 4, size * 3 // 2 + 1, size=2))
    palette = _palette(rng)
    ground = GROUNDS[int(rng.integers(len(GROUNDS)))]
    picture = _clutter(ground(palette, height, width, rng), rng)
    cover = _place(mask(NAMES[index]), height, width, rng)
    return _spoil(_paint(picture, cover, palette, rng), rng)


def dataset(count: int, seed: int) -> tuple[list[Picture], NDArray[np.int64]]:
    """Render `count` pictures and their classes, int64 (count,): 0, 1, ... 9, 0, 1, ..."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count, dtype=np.int64) % len(NAMES)
    return [render(int(index), rng) for index in classes], classes


def write(folder: Path, count: int, seed: int) -> list[Path]:
    """Write the pictures of `dataset` as JPEG files `<class name>_<number>.jpg`; makes the folder.

    The number counts the pictures of a class from 0. Raises OSError if a file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for position, (picture, index) in enumerate(zip(*dataset(count, seed), strict=True)):
        path = folder / f"{NAMES[index]}_{position // len(NAMES)}.jpg"
        path.write_bytes(_jpeg(picture, quality=90).tobytes())
        written.append(path)
    return written


def _palette(rng: np.random.Generator) -> _Palette:
    while True:
        palette = _Palette(*rng.uniform(0, 255, size=(3, 3)).astype(np.float32))
        middle = (palette.ground + palette.second) / 2
        ground = np.stack([palette.ground, middle, palette.second])
        if np.linalg.norm(ground - palette.ink, axis=1).min() >= CONTRAST:
            return palette


def _mix(palette: _Palette, share: Canvas) -> Canvas:
    """Mix the ground's two colours; `share` of the second, (height, width), 0 to 1."""
    part = share[:, :, None]
    return palette.ground * (1 - part) + palette.second * part


def _ramp(height: int, width: int, rng: np.random.Generator) -> Canvas:
    """Rise from 0 to 1 across the picture in a random direction; (height, width)."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    return np.asarray((along - along.min()) / np.ptp(along), dtype=np.float32)


def _plain(palette: _Palette, height: int, width: int, rng: np.random.Generator) -> Canvas:
    return np.tile(palette.ground, (height, width, 1))


def _gradient(palette: _Palette, height: int, width: int, rng: np.random.Generator) -> Canvas:
    return _mix(palette, _ramp(height, width, rng))


def _stripes(palette: _Palette, height: int, width: int, rng: np.random.Generator) -> Canvas:
    waves = np.sin(_ramp(height, width, rng) * np.float32(rng.uniform(15, 90)))
    steepness = np.float32(rng.uniform(1, 6))
    return _mix(palette, np.clip(waves * steepness * 0.5 + 0.5, 0, 1))


def _clouds(palette: _Palette, height: int, width: int, rng: np.random.Generator) -> Canvas:
    cells = int(rng.integers(3, 24))
    coarse = rng.random((cells, cells), dtype=np.float32)
    share = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return _mix(palette, np.clip(np.asarray(share, dtype=np.float32), 0, 1))


Ground = Callable[[_Palette, int, int, np.random.Generator], Canvas]
GROUNDS: tuple[Ground, ...] = (_plain, _gradient, _stripes, _clouds)


def _clutter(picture: Canvas, rng: np.random.Generator) -> Canvas:
    """Draw up to three lines and up to three small blobs that mean nothing."""
    height, width = picture.shape[:2]
    for _ in range(rng.integers(0, 4)):
        start, end = (rng.integers(0, (width, height)).tolist() for _ in range(2))
        thickness = int(rng.integers(1, 5))
        cv2.line(picture, start, end, _colour(rng), thickness, cv2.LINE_AA)
    for _ in range(rng.integers(0, 4)):
        centre = rng.integers(0, (width, height)).tolist()
        axes = rng.integers(2, 10, size=2).tolist()
        cv2.ellipse(picture, centre, axes, rng.uniform(0, 180), 0, 360, _colour(rng), cv2.FILLED)
    return picture


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = rng.uniform(0, 255, size=3).tolist()
    return red, green, blue


def _warp(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a turn, shear and stretch that keep a shape recognisable; float64 (2, 2)."""
    angle, shear = np.radians(rng.uniform(-20, 20)), rng.uniform(-0.15, 0.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag(rng.uniform(0.8, 1.0, size=2))
    return np.asarray(turn @ np.array([[1, shear], [0, 1]]) @ stretch, dtype=np.float64)


def _place(shape: Picture, height: int, width: int, rng: np.random.Generator) -> Canvas:
    """Warp, scale and move a mask; returns the cover, (height, width), 0 to 1."""
    short = min(height, width)
    reach = rng.uniform(0.6, 0.88) * short
    matrix = _warp(rng) * reach / CANVAS
    # The centre crop keeps 7/8 of the short side; a little of the pictogram may lie outside it.
    slack = max(0.9 * short - reach, 0) / 2
    centre = np.array([width, height]) / 2 + rng.uniform(-slack, slack, size=2)
    offset = centre - matrix @ np.array([CANVAS / 2, CANVAS / 2])
    affine = np.column_stack([matrix, offset])
    # INTER_LINEAR takes four pixels however far it shrinks: smooth first, or edges turn ragged.
    smooth = cv2.GaussianBlur(shape, (0, 0), max(0.3 * CANVAS / reach, 0.5))
    cover = cv2.warpAffine(smooth, affine, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(cover, dtype=np.float32) / np.float32(255)


def _paint(picture: Canvas, cover: Canvas, palette: _Palette, rng: np.random.Generator) -> Canvas:
    """Lay the pictogram over the picture: shaded, perhaps with a shadow, perhaps translucent."""
    height, width = cover.shape
    if rng.random() < 0.3:
        shift = np.roll(cover, rng.integers(-6, 7, size=2).tolist(), axis=(0, 1))
        picture = picture * (1 - 0.4 * shift[:, :, None])
    shade = 1 + rng.uniform(-0.3, 0.3) * (_ramp(height, width, rng)[:, :, None] - 0.5)
    part = cover[:, :, None] * np.float32(rng.uniform(0.85, 1.0))
    return np.asarray(picture * (1 - part) + palette.ink * shade * part, dtype=np.float32)


def _spoil(picture: Canvas, rng: np.random.Generator) -> Picture:
    """Blur, light, noise and JPEG: what a cheap camera does; returns uint8."""
    if rng.random() < 0.6:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 2.0)))
    picture = picture * np.float32(rng.uniform(0.7, 1.15))
    picture = picture + rng.uniform(0, 15) * rng.standard_normal(picture.shape, dtype=np.float32)
    exposed = np.clip(picture, 0, 255).astype(np.uint8)
    encoded = _jpeg(exposed, quality=int(rng.integers(25, 96)))
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _jpeg(picture: Picture, quality: int) -> Picture:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(encoded, dtype=np.uint8)
