"""List the known preprocessings, and load images in all their geometries."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.contract import Geometry, Input
from kedge_runtime.artefact.kinds import Colour, Orientation
from kedge_runtime.errors import ImageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.opencv import cv2
from kedge_runtime.image.pipelines import FORMULAS, NORMALISATIONS, PIPELINES, read_normalisation
from kedge_runtime.image.preprocessing import Preprocessor

# The second view of an image lacks this share on each side; a smaller cut is too similar.
CUT = 0.15

Tick = Callable[[], None]
Sized = dict[Geometry, Pixels]  # uint8 [images, height, width, channels]


@dataclass(frozen=True)
class Images:
    """Hold images at the model's size by geometry, and the unreadable files."""

    sized: Sized
    paths: tuple[Path, ...]
    broken: tuple[Path, ...]


def load(
    paths: Sequence[Path], spec: Input, geometries: Sequence[Geometry], tick: Tick = lambda: None
) -> Images:
    """Load the images in each of the geometries, with the channels of `spec` in the order RGB."""
    plans = {each: Preprocessor(replace(spec, geometry=each)) for each in geometries}
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
    """Yield an image in each geometry; geometries with the same decoding share the pixels."""
    decoded: dict[tuple[Orientation, bool], Pixels] = {}
    for geometry, plan in plans.items():
        key = geometry.orientation, geometry.scaled_decode
        if key not in decoded:
            decoded[key] = plan.read(path)
        yield geometry, plan.fit(decoded[key])


def zoomed(pixels: Pixels) -> Pixels:
    """Return images, uint8 [n, h, w, c], without CUT on each side, resized to their size."""
    height, width = pixels.shape[1:3]
    top, left = max(1, round(CUT * height)), max(1, round(CUT * width))
    cut = pixels[:, top : height - top, left : width - left]
    views = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in cut]
    return np.asarray(views, np.uint8).reshape(pixels.shape)


# The geometry for comparing normalisations: the two interact little.
NEUTRAL = "image_dataset"
COLOURS: dict[int, tuple[Colour, ...]] = {1: ("grey",), 3: ("rgb", "bgr")}


@dataclass(frozen=True)
class InputCandidate:
    """Hold one preprocessing.

    `normalisation`: its name; `pipelines`: the names of the pipelines with its geometry.
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
        """The normalisation of a byte x, and the colour order unless it is RGB."""
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
        """The options of `kedge convert` for this preprocessing."""
        return f"--preprocess {self.pipelines[0]} {self.normalisation_flags}"

    @property
    def _pipeline_colour(self) -> Colour:
        return PIPELINES[self.pipelines[0]].colour

    def with_geometry(self, geometry: Geometry, pipelines: tuple[str, ...]) -> "InputCandidate":
        """Return the same normalisation on another geometry."""
        return replace(self, pipelines=pipelines, input=replace(self.input, geometry=geometry))


def normalisations(
    spec: Input, channels: int, pipelines: tuple[str, ...]
) -> tuple[InputCandidate, ...]:
    """Return every known normalisation in every colour order, with the geometry of `spec`."""
    return tuple(
        InputCandidate(
            name, pipelines, replace(spec, normalisation=read_normalisation(name, colour))
        )
        for name, known in NORMALISATIONS.items()
        for colour in COLOURS[channels]
        if channels == 3 or len(set(known.mean)) == 1
    )


def geometries(height: int, width: int) -> dict[Geometry, tuple[str, ...]]:
    """Return the geometries of PIPELINES for a size in pixels, each with its names."""
    found: dict[Geometry, tuple[str, ...]] = {}
    for name, pipeline in PIPELINES.items():
        geometry = pipeline.geometry(height, width)
        found[geometry] = (*found.get(geometry, ()), name)
    return found
