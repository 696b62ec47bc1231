"""List the known ways to feed a model: normalisations with a colour order, and geometries."""

from dataclasses import dataclass, replace

from kedge_runtime.contract import Colour, Geometry, Input
from kedge_runtime.normalisations import FORMULAS, NORMALISATIONS, read_normalisation
from kedge_runtime.pipelines import PIPELINES

# Normalisation and geometry interact little: this one judges the normalisations.
NEUTRAL = "image_dataset"
COLOURS: dict[int, tuple[Colour, ...]] = {1: ("grey",), 3: ("rgb", "bgr")}


@dataclass(frozen=True)
class Candidate:
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

    def with_geometry(self, geometry: Geometry, pipelines: tuple[str, ...]) -> "Candidate":
        """Return the same normalisation on another geometry."""
        return replace(self, pipelines=pipelines, input=replace(self.input, geometry=geometry))


def normalisations(fed: Input, channels: int, pipelines: tuple[str, ...]) -> tuple[Candidate, ...]:
    """Return every known normalisation in every colour order, with the geometry of `fed`."""
    return tuple(
        Candidate(name, pipelines, replace(fed, normalisation=read_normalisation(name, colour)))
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
