"""Decode images and bring them to the model's size, once for all candidates that share that."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from kedge_runtime.contract import Geometry, Input, Orientation
from kedge_runtime.errors import ImageError
from kedge_runtime.image import Pixels
from kedge_runtime.preprocessing import Preprocessor

# By how much the second view of an image is cut on each side: less leaves the views too alike.
CUT = 0.15

Tick = Callable[[], None]
Sized = dict[Geometry, Pixels]  # uint8 [images, height, width, channels]


@dataclass(frozen=True)
class Images:
    """Images at the model's size by geometry, and the files that can't be read."""

    sized: Sized
    paths: tuple[Path, ...]
    broken: tuple[Path, ...]


def load(
    paths: Sequence[Path], fed: Input, geometries: Sequence[Geometry], tick: Tick = lambda: None
) -> Images:
    """Return the images in each of the geometries, in the colours of `fed` but always RGB."""
    plans = {each: Preprocessor(replace(fed, geometry=each)) for each in geometries}
    rows: dict[Geometry, list[Pixels]] = {each: [] for each in geometries}
    read, broken = list[Path](), list[Path]()
    for path in paths:
        try:
            sized = dict(_sized(path, plans))
        except ImageError:
            broken.append(path)
        else:
            read.append(path)
            for geometry, pixels in sized.items():
                rows[geometry].append(pixels)
        tick()
    return Images({g: np.stack(r) for g, r in rows.items() if r}, tuple(read), tuple(broken))


def _sized(path: Path, plans: dict[Geometry, Preprocessor]) -> Iterator[tuple[Geometry, Pixels]]:
    """Yield an image in each geometry; those that are decoded alike share the pixels."""
    decoded: dict[tuple[Orientation, bool], Pixels] = {}
    for geometry, plan in plans.items():
        key = geometry.orientation, geometry.scaled_decode
        if key not in decoded:
            decoded[key] = plan.read(path)
        yield geometry, plan.fit(decoded[key])


def zoomed(pixels: Pixels) -> Pixels:
    """Return images, uint8 [n, h, w, c], cut by CUT on each side and brought back to their size."""
    height, width = pixels.shape[1:3]
    top, left = max(1, round(CUT * height)), max(1, round(CUT * width))
    cut = pixels[:, top : height - top, left : width - left]
    views = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in cut]
    return np.asarray(views, np.uint8).reshape(pixels.shape)
