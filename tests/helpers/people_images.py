"""Renders class folders of images as people have them: PNG and JPEG, many sizes, some with EXIF.

Needs numpy and Pillow alone, and gives the same bytes in every environment of one Pillow.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLASSES = ("cross", "disc", "ring", "square", "triangle")
EACH = 40  # images of a class
SIDES = (40, 301)  # pixels, the upper end excluded
# The usual colour of a class, so that a small net learns something in seconds.
COLOURS = ((190, 60, 60), (60, 170, 70), (70, 80, 190), (190, 180, 60), (170, 80, 170))
JITTER = 75  # bytes; colours of neighbours overlap, so that answers stay unsure
NOISE = 14.0  # standard deviation, in bytes
ORIENTATION = 0x0112  # the EXIF tag
ROTATIONS = (3, 6, 8)

Pixels = NDArray[np.uint8]


def write(folder: Path, seed: int = 0) -> Path:
    """Render `folder`/<class>/<number>.png or .jpg unless the folder is there; return it."""
    if folder.exists():
        return folder
    rng = np.random.default_rng(seed)
    for number in range(EACH):
        for index, name in enumerate(CLASSES):
            (folder / name).mkdir(parents=True, exist_ok=True)
            _save(Image.fromarray(_render(index, rng)), folder / name / f"{number:02}", number)
    return folder


def judged(folder: Path) -> list[str]:
    """Return 12 images of `folder`, relative, two or three of a class, about half of them JPEG."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*.*"))]
    return names[3 :: len(names) // 12 + 1][:12]


def _save(image: Any, stem: Path, number: int) -> None:
    """Write every second one as JPEG, every third of these with an EXIF orientation."""
    if number % 2 == 0:
        image.save(stem.with_suffix(".png"))
        return
    exif = Image.Exif()
    if number % 3 == 0:
        exif[ORIENTATION] = ROTATIONS[number // 3 % len(ROTATIONS)]
    image.save(stem.with_suffix(".jpg"), quality=75 + number % 20, exif=exif)


def _render(index: int, rng: np.random.Generator) -> Pixels:
    """Return one image of class `index`: a shape on a slope of two colours, with noise."""
    height, width = (int(side) for side in rng.integers(*SIDES, size=2))
    ends = rng.uniform(40, 215, (2, 3))
    slope = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    ground = ends[0] * (1 - slope) + ends[1] * slope
    colour = np.array(COLOURS[index]) + rng.uniform(-JITTER, JITTER, 3)
    cover = np.asarray(_mask(index, height, width, rng), np.float64)[..., None] / 255
    values = ground * (1 - cover) + colour * cover
    values += rng.normal(0, NOISE, values.shape)
    return np.asarray(values.round().clip(0, 255), np.uint8)


def _mask(index: int, height: int, width: int, rng: np.random.Generator) -> Any:
    """Draw the shape of a class: a Pillow image of grey, 255 inside."""
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    radius = min(height, width) * rng.uniform(0.25, 0.48)
    x = rng.uniform(radius, width - radius)
    y = rng.uniform(radius, height - radius)
    box = (x - radius, y - radius, x + radius, y + radius)
    thick = radius * 0.35
    if CLASSES[index] == "cross":
        draw.rectangle((x - radius, y - thick, x + radius, y + thick), fill=255)
        draw.rectangle((x - thick, y - radius, x + thick, y + radius), fill=255)
    elif CLASSES[index] == "disc":
        draw.ellipse(box, fill=255)
    elif CLASSES[index] == "ring":
        draw.ellipse(box, outline=255, width=max(1, int(thick)))
    elif CLASSES[index] == "square":
        draw.rectangle(box, fill=255)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], 255)
    return image
