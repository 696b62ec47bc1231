"""How a person says, in options, how images become the input of a model.

`seal`, `classify`, `bench` and `convert` take the same options. What they leave open is asked for,
all of it in one message: no geometry and no normalisation is a default.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Final, get_args

from kedge_runtime.artefact.contract import (
    Colour,
    Fit,
    Geometry,
    Input,
    Normalisation,
    Orientation,
    Resize,
)
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.image.pipelines import (
    NORMALISATIONS,
    PIPELINES,
    Pipeline,
    formula,
    meant,
    read_normalisation,
)

# The fits that cut a fraction out of the image; the others have none to tell.
CROPPING: Final[frozenset[Fit]] = frozenset({"crop", "torchvision_crop"})


@dataclass(frozen=True)
class PixelWords:
    """What was said of the pixels; None where nothing was.

    `preprocess`: a key of PIPELINES; `normalisation`: as `read_normalisation` reads it; `crop`: a
    fraction, .1 to 1; `exif`: whether EXIF's orientation is applied. The parts go before what the
    pipeline brings. Raises UsageError for a word that no option allows.
    """

    preprocess: str | None = None
    normalisation: str | None = None
    colour: Colour | None = None
    resize: Resize | None = None
    fit: Fit | None = None
    crop: float | None = None
    exif: bool | None = None

    def __post_init__(self) -> None:
        """Refuse words that are not allowed, no normalisation, or contradict each other.

        All of it is known before a model is loaded, also of what kedge.toml holds.
        """
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise UsageError(refused(name, value))
        if self.normalisation is not None:
            read_normalisation(self.normalisation)
        if self.preprocess or (self.resize and self.fit):
            _geometry(self, _pipeline(self, None), 1, 1)

    @property
    def given(self) -> bool:
        """Whether anything was said."""
        return any(getattr(self, each.name) is not None for each in fields(self))

    def options(self) -> str:
        """Return the options as they stand on a command line."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        exif = said.pop("exif")
        parts = [f"--{name} {_quoted(value)}" for name, value in said.items() if value is not None]
        return " ".join([*parts, *{None: [], True: ["--exif"], False: ["--no-exif"]}[exif]])


ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "preprocess": tuple(PIPELINES),
    "colour": get_args(Colour),
    "resize": get_args(Resize),
    "fit": get_args(Fit),
}


def refused(name: str, value: str) -> str:
    """Return the line about a value that an option of ALLOWED does not take."""
    near = meant(value) if name == "preprocess" else get_close_matches(value, ALLOWED[name], n=1)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"--{name}: got {value!r}, allowed are {', '.join(ALLOWED[name])}{hint}"


@dataclass(frozen=True)
class Missing:
    """A fact that nobody told: the option that tells it, and what that allows, in words.

    `value`: what stands for its value in a command.
    """

    option: str
    allowed: str
    value: str = "NAME"

    @property
    def written(self) -> str:
        """The option with a place for its value."""
        return f"{self.option} {self.value}".split(" or ")[0].strip()

    def __str__(self) -> str:
        """Return e.g. `--head (softmax, logits)`."""
        return f"{self.option} ({self.allowed})"


def missing(
    words: PixelWords, default: Pipeline | None = None, normalisation: Normalisation | None = None
) -> tuple[Missing, ...]:
    """Return what is still to be told. `default`, `normalisation`: what the model itself says."""
    pipeline = _pipeline(words, default)
    lacks = [] if pipeline else _parts(words)
    known = words.normalisation or normalisation or (pipeline and pipeline.normalisation)
    if not known:
        names = ", ".join(NORMALISATIONS)
        lacks.append(
            Missing("--normalisation", f"{names}, or numbers: 'scale=1/255 mean=.5 std=.5'")
        )
    return tuple(lacks)


def settled(
    words: PixelWords,
    height: int,
    width: int,
    channels: int,
    default: Pipeline | None = None,
    *,
    normalisation: Normalisation | None = None,
) -> Input:
    """Return geometry, normalisation and pipeline of a model's input; its tensor is left open.

    `height`, `width`: pixels; `channels`: 1 or 3; `default`: the pipeline that the model or its
    card names, `normalisation`: what the model itself says. What was said goes before both. Raises
    one UsageError that lists everything that is missing, or says what can't be.
    """
    if lacks := missing(words, default, normalisation):
        raise UsageError(f"the input is not told: {asked(lacks)}")
    pipeline = _pipeline(words, default)
    geometry = _geometry(words, pipeline, height, width)
    return Input(
        geometry,
        _normalisation(words, channels, pipeline, normalisation),
        pipeline=_name(pipeline, geometry),
    )


def asked(lacks: Iterable[Missing]) -> str:
    """Return what is missing, as a request."""
    return "give " + "; ".join(map(str, lacks))


def line(spec: Input, why: str = "") -> str:
    """Return e.g. `input: 160x160 rgb, bilinear, stretch, no EXIF, x / 255 (--preprocess NAME)`.

    `why`: where it comes from; by default the option that names the pipeline, if one is known.
    """
    geometry = spec.geometry
    fit: str = geometry.fit
    if geometry.fit in CROPPING:
        fit += f" {geometry.crop_fraction:.1%}".replace(".0%", "%").replace("%", " %")
    parts = (
        f"{geometry.height}x{geometry.width} {spec.normalisation.colour}",
        geometry.resize,
        fit,
        "EXIF" if geometry.orientation == "exif" else "no EXIF",
        formula(spec.normalisation),
    )
    why = why or (spec.pipeline and f"--preprocess {spec.pipeline}")
    return f"input: {', '.join(parts)}" + (f" ({why})" if why else "")


def _pipeline(words: PixelWords, default: Pipeline | None) -> Pipeline | None:
    return PIPELINES[words.preprocess] if words.preprocess else default


def _parts(words: PixelWords) -> list[Missing]:
    """Return what is missing of a geometry that no pipeline names."""
    lacks = []
    if words.resize is None:
        lacks.append(Missing("--resize", ", ".join(get_args(Resize))))
    if words.fit is None:
        lacks.append(Missing("--fit", ", ".join(get_args(Fit))))
    if words.fit in CROPPING and words.crop is None:
        lacks.append(Missing("--crop", "a fraction, as .875", "FRACTION"))
    if words.exif is None:
        lacks.append(Missing("--exif or --no-exif", "turn images by their EXIF or not", ""))
    if len(lacks) > 1:
        parts = ", ".join(each.option for each in lacks)
        return [Missing("--preprocess", f"{', '.join(PIPELINES)}; or its parts: {parts}")]
    return lacks


def _geometry(words: PixelWords, pipeline: Pipeline | None, height: int, width: int) -> Geometry:
    known = pipeline or Pipeline("", "bilinear")
    resize, fit = words.resize or known.resize, words.fit or known.fit
    if words.crop is not None and fit not in CROPPING:
        raise UsageError(
            f"--crop: --fit {fit} cuts no fraction; give --fit crop with it, or leave it out"
        )
    told: Orientation = "exif" if words.exif else "ignore"
    fraction = known.crop_fraction if words.crop is None else words.crop
    try:
        return Geometry(
            height,
            width,
            resize,
            fit,
            fraction if fit in CROPPING else 1.0,
            known.orientation if words.exif is None else told,
            # How a JPEG may be decoded was measured with the pipeline's own method only.
            known.scaled_decode and resize == known.resize,
        )
    except ContractError as error:
        raise UsageError(str(error)) from None


def _normalisation(
    words: PixelWords, channels: int, pipeline: Pipeline | None, own: Normalisation | None
) -> Normalisation:
    colour = _colour(words, channels, pipeline)
    if words.normalisation or own is None:
        name = words.normalisation or (pipeline.normalisation if pipeline else "")
        return read_normalisation(name, colour)
    if colour in (None, own.colour):
        return own
    if len({*own.mean}) > 1 or len({*own.std}) > 1:
        raise UsageError(
            f"--colour {colour}: the file's own numbers are for {own.colour}; say --normalisation"
        )
    return replace(own, colour=colour, mean=own.mean[:1] * channels, std=own.std[:1] * channels)


def _colour(words: PixelWords, channels: int, pipeline: Pipeline | None) -> Colour | None:
    """Return the images' colour, None where the name of the normalisation tells."""
    if channels not in (1, 3):
        raise UsageError(
            f"the model takes {channels} channels; kedge feeds images of 1 (grey) or 3 (rgb, bgr)"
        )
    if words.colour and (words.colour == "grey") != (channels == 1):
        allowed = "grey" if channels == 1 else "rgb, bgr"
        raise UsageError(
            f"--colour {words.colour}: the model takes {channels} channels, allowed are {allowed}"
        )
    if channels == 1:
        return "grey"
    of_pipeline = pipeline.colour if pipeline and pipeline.colour != "rgb" else None
    return words.colour or of_pipeline


def _name(pipeline: Pipeline | None, geometry: Geometry) -> str:
    """Return the name of the pipeline, empty where a part of its geometry was replaced."""
    if not pipeline or pipeline.geometry(geometry.height, geometry.width) != geometry:
        return ""
    # By its words: a card may bring the pipeline with a normalisation of its own.
    return next((name for name, each in PIPELINES.items() if each.what == pipeline.what), "")


def _quoted(value: Any) -> str:
    return f"'{value}'" if " " in str(value) else f"{value}"
