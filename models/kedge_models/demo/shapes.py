"""Define the demo's ten shapes, each a test of points, and locate its files.

They stand apart from the renderer because they need no OpenCV: the registry below is the one list
of classes, and the labels are read from it.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Label

Grid = NDArray[np.float64]
Inside = NDArray[np.bool_]

CANVAS = 256
"""Side of a mask, in pixels: larger than any pictogram drawn from it, so edges stay smooth."""


def _polygon(x: Grid, y: Grid, corners: list[tuple[float, float]]) -> Inside:
    """Test points by the even-odd rule: a ray to the right crosses the outline how often?"""
    inside = np.zeros(x.shape, dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            edge = x0 + (x1 - x0) * (y - y0) / (y1 - y0)
            inside ^= ((y0 > y) != (y1 > y)) & (x < edge)
    return inside


def _box(x: Grid, y: Grid, left: float, top: float, right: float, bottom: float) -> Inside:
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def _disc(x: Grid, y: Grid, radius: float) -> Inside:
    return x * x + y * y < radius * radius


def _arrow(x: Grid, y: Grid) -> Inside:
    head = _polygon(x, y, [(0.1, -0.7), (0.95, 0), (0.1, 0.7)])
    return head | _box(x, y, -0.95, -0.22, 0.15, 0.22)


def _cross(x: Grid, y: Grid) -> Inside:
    return _box(x, y, -0.27, -0.9, 0.27, 0.9) | _box(x, y, -0.9, -0.27, 0.9, 0.27)


def _fish(x: Grid, y: Grid) -> Inside:
    body = _disc(x + 0.22, y * 1.5, 0.7)
    tail = _polygon(x, y, [(0.25, 0), (0.95, -0.55), (0.8, 0), (0.95, 0.55)])
    return (body | tail) & ~_disc(x + 0.56, y + 0.12, 0.1)


def _heart(x: Grid, y: Grid) -> Inside:
    across, up = 1.25 * x, 0.12 - 1.25 * y
    return (across**2 + up**2 - 1) ** 3 < across**2 * up**3


def _house(x: Grid, y: Grid) -> Inside:
    roof = _polygon(x, y, [(-0.95, 0), (0, -0.9), (0.95, 0)])
    chimney = _box(x, y, 0.42, -0.85, 0.66, -0.2)
    walls = _box(x, y, -0.7, -0.05, 0.7, 0.85)
    return (roof | chimney | walls) & ~_box(x, y, -0.2, 0.25, 0.2, 0.9)


def _key(x: Grid, y: Grid) -> Inside:
    bow = _disc(x + 0.5, y, 0.45) & ~_disc(x + 0.5, y, 0.22)
    shaft = _box(x, y, -0.12, -0.11, 0.95, 0.11)
    teeth = _box(x, y, 0.42, 0, 0.58, 0.42) | _box(x, y, 0.77, 0, 0.95, 0.42)
    return bow | shaft | teeth


def _moon(x: Grid, y: Grid) -> Inside:
    return _disc(x + 0.1, y, 0.88) & ~_disc(x - 0.32, y + 0.12, 0.7)


def _ring(x: Grid, y: Grid) -> Inside:
    return _disc(x, y, 0.88) & ~_disc(x, y, 0.5)


def _star(x: Grid, y: Grid) -> Inside:
    radii, angles = np.tile([0.98, 0.4], 5), np.arange(10) * np.pi / 5
    corners = zip(
        (radii * np.sin(angles)).tolist(), (-radii * np.cos(angles)).tolist(), strict=True
    )
    return _polygon(x, y, list(corners))


def _umbrella(x: Grid, y: Grid) -> Inside:
    scallops = _disc(x + 0.61, y, 0.26) | _disc(x, y, 0.26) | _disc(x - 0.61, y, 0.26)
    canopy = _disc(x, y, 0.92) & (y < 0.05) & ~scallops
    stick = _box(x, y, -0.08, -0.98, 0.08, 0.66)
    hook = _disc(x - 0.2, y - 0.65, 0.28) & ~_disc(x - 0.2, y - 0.65, 0.12) & (y > 0.65)
    return canopy | stick | hook


SHAPES: dict[str, Callable[[Grid, Grid], Inside]] = {
    "arrow": _arrow,
    "cross": _cross,
    "fish": _fish,
    "heart": _heart,
    "house": _house,
    "key": _key,
    "moon": _moon,
    "ring": _ring,
    "star": _star,
    "umbrella": _umbrella,
}


@cache
def mask(name: str) -> NDArray[np.uint8]:
    """Draw a shape upright and centred: (CANVAS, CANVAS), 255 inside and 0 outside; read-only."""
    steps = (np.arange(CANVAS) + 0.5) / CANVAS * 2 - 1
    x, y = np.meshgrid(steps, steps)
    drawn = SHAPES[name](x, y).astype(np.uint8) * np.uint8(255)
    drawn.flags.writeable = False
    return drawn


MODEL = Path(__file__).parent / "demo.keras"
"""The trained model: float32 images (n, 96, 96, 3) to softmax (n, 10), in the order of LABELS."""

SAMPLES = Path(__file__).parent / "samples"
"""A folder of rendered JPEG images, named `<label's name>_<number>.jpg`."""

LABELS = tuple(Label(id=f"demo-{name}", name=name) for name in SHAPES)
"""The ten classes, in the order of the model's output."""
