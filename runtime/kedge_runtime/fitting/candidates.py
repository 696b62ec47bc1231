"""List the known ways to feed a model, and prepare images for all of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.contract import Colour, Geometry, Input, Orientation
from kedge_runtime.errors import ImageError
from kedge_runtime.image.pipelines import FORMULAS, NORMALISATIONS, PIPELINES, read_normalisation
from kedge_runtime.image.preprocessing import Preprocessor

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


# Normalisation and geometry interact little: this one judges the normalisations.
NEUTRAL = "image_dataset"
COLOURS: dict[int, tuple[Colour, ...]] = {1: ("grey",), 3: ("rgb", "bgr")}


@dataclass(frozen=True)
class InputCandidate:
    """One way to feed a model.

    `normalisation`: its name, `pipelines`: the names of the pipelines that have its geometry.
    """

    normalisation: str
    pipelines: tuple[str, ...]
    input: Input

    @property
    def colour(self) -> Colour:
        """The order of the channels."""
        return self.input.normalisation.colour

    @property
    def formula(self) -> str:
        """What happens to a byte x; with the colour order where that is not RGB."""
        order = ", BGR" if self.colour == "bgr" else ""
        return f"{FORMULAS[self.normalisation]}{order}"

    @property
    def normalisation_flags(self) -> str:
        """The options of `kedge convert` for normalisation and colour."""
        default = {NORMALISATIONS[self.normalisation].colour, self._pipeline_colour}
        plain = self.colour == "grey" or default == {self.colour}
        return f"--normalisation {self.normalisation}" + (
            "" if plain else f" --colour {self.colour}"
        )

    @property
    def flags(self) -> str:
        """The options of `kedge convert` that feed a model like this."""
        return f"--preprocess {self.pipelines[0]} {self.normalisation_flags}"

    @property
    def _pipeline_colour(self) -> Colour:
        return PIPELINES[self.pipelines[0]].colour

    def with_geometry(self, geometry: Geometry, pipelines: tuple[str, ...]) -> "InputCandidate":
        """Return the same normalisation on another geometry."""
        return replace(self, pipelines=pipelines, input=replace(self.input, geometry=geometry))


def normalisations(
    fed: Input, channels: int, pipelines: tuple[str, ...]
) -> tuple[InputCandidate, ...]:
    """Return every known normalisation in every colour order, with the geometry of `fed`."""
    return tuple(
        InputCandidate(
            name, pipelines, replace(fed, normalisation=read_normalisation(name, colour))
        )
        for name, known in NORMALISATIONS.items()
        for colour in COLOURS[channels]
        if channels == 3 or len(set(known.mean)) == 1
    )


def geometries(height: int, width: int) -> dict[Geometry, tuple[str, ...]]:
    """Return the geometries of PIPELINES for a size in pixels; the same one has several names."""
    found: dict[Geometry, tuple[str, ...]] = {}
    for name, pipeline in PIPELINES.items():
        geometry = pipeline.geometry(height, width)
        found[geometry] = (*found.get(geometry, ()), name)
    return found
