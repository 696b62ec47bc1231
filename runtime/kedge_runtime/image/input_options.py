"""Turn the user's options into the record of a model's input.

`seal`, `classify`, `bench` and `convert` take the same options. One message asks for everything
that they leave open: neither geometry nor normalisation has a default.
"""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, Final, get_args

from kedge_runtime.artefact.contract import Geometry, Input, Normalisation
from kedge_runtime.artefact.kinds import Colour, Fit, Orientation, Resize
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.pipelines import (
    NORMALISATIONS,
    PIPELINES,
    Pipeline,
    formula,
    read_normalisation,
    suggest_pipelines,
)

# The fits that cut a fraction out of the image.
CROPPING: Final[frozenset[Fit]] = frozenset({"crop", "torchvision_crop"})


@dataclass(frozen=True)
class InputOptions:
    """The user's options on how images become a model's input; None where an option is absent.

    `preprocess`: a key of PIPELINES. `normalisation`: as `read_normalisation` reads it. `crop`: a
    fraction, .1 to 1. `exif`: whether EXIF's orientation is applied. An option overrides its part
    of the pipeline. Raises UsageError for a value that is not allowed.
    """

    preprocess: str | None = None
    normalisation: str | None = None
    colour: Colour | None = None
    resize: Resize | None = None
    fit: Fit | None = None
    crop: float | None = None
    exif: bool | None = None

    def __post_init__(self) -> None:
        """Refuse values that are not allowed or contradict each other.

        This is known before a model is loaded, and holds for kedge.toml, too.
        """
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise UsageError(refusal(name, value))
        if self.normalisation is not None:
            read_normalisation(self.normalisation)
        if self.preprocess or (self.resize and self.fit):
            _geometry(self, _pipeline(self, None), 1, 1)

    @property
    def given(self) -> bool:
        """Whether any option is present."""
        return any(getattr(self, each.name) is not None for each in fields(self))

    def options(self) -> str:
        """Return the options as typed on a command line."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        exif = values.pop("exif")
        parts = [
            f"--{name} {_quoted(value)}" for name, value in values.items() if value is not None
        ]
        return " ".join([*parts, *{None: [], True: ["--exif"], False: ["--no-exif"]}[exif]])


ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "preprocess": tuple(PIPELINES),
    "colour": get_args(Colour),
    "resize": get_args(Resize),
    "fit": get_args(Fit),
}


def refusal(name: str, value: str) -> str:
    """Return the message on a value that the option `name`, a key of ALLOWED, does not take."""
    from difflib import get_close_matches

    near = (
        suggest_pipelines(value)
        if name == "preprocess"
        else get_close_matches(value, ALLOWED[name], n=1)
    )
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"--{name}: got {value!r}, allowed are {', '.join(ALLOWED[name])}{hint}"


@dataclass(frozen=True)
class MissingOption:
    """An option that the user has to give, and the values that it allows, for a message.

    `value`: the placeholder of its value in a command.
    """

    option: str
    allowed: str
    value: str = "NAME"

    @property
    def example(self) -> str:
        """The option with a placeholder for its value."""
        return f"{self.option} {self.value}".split(" or ")[0].strip()

    def __str__(self) -> str:
        """Return e.g. `--head (softmax, logits)`."""
        return f"{self.option} ({self.allowed})"


def missing_options(
    options: InputOptions,
    default: Pipeline | None = None,
    normalisation: Normalisation | None = None,
) -> tuple[MissingOption, ...]:
    """Return the options that the user still has to give.

    `default`, `normalisation`: those that the model itself states.
    """
    pipeline = _pipeline(options, default)
    missing = [] if pipeline else _missing_parts(options)
    if not (options.normalisation or normalisation or (pipeline and pipeline.normalisation)):
        names = ", ".join(NORMALISATIONS)
        missing.append(
            MissingOption("--normalisation", f"{names}, or numbers: 'scale=1/255 mean=.5 std=.5'")
        )
    return tuple(missing)


def resolve_input(
    options: InputOptions,
    height: int,
    width: int,
    channels: int,
    default: Pipeline | None = None,
    *,
    normalisation: Normalisation | None = None,
) -> Input:
    """Return geometry, normalisation and pipeline of a model's input; its tensor stays the default.

    `height`, `width`: pixels; `channels`: 1 or 3. `default`: the pipeline that the model or its
    card names. `normalisation`: the one that the model itself states. `options` override both.
    Raises one UsageError that lists every missing option, or names a contradiction.
    """
    if missing := missing_options(options, default, normalisation):
        raise UsageError(f"the input is not stated: {request_for(missing)}")
    pipeline = _pipeline(options, default)
    geometry = _geometry(options, pipeline, height, width)
    return Input(
        geometry,
        _normalisation(options, channels, pipeline, normalisation),
        pipeline=_name(pipeline, geometry),
    )


def request_for(missing: Iterable[MissingOption]) -> str:
    """Return the request to give some options."""
    return "give " + "; ".join(map(str, missing))


def describe_input(spec: Input, why: str = "") -> str:
    """Return e.g. `input: 160x160 rgb, bilinear, stretch, no EXIF, x / 255 (--preprocess NAME)`.

    `why`: the source of these values; by default the option that names the pipeline.
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


def _pipeline(options: InputOptions, default: Pipeline | None) -> Pipeline | None:
    return PIPELINES[options.preprocess] if options.preprocess else default


def _missing_parts(options: InputOptions) -> list[MissingOption]:
    """Return the options that a geometry without a pipeline lacks."""
    missing = []
    if options.resize is None:
        missing.append(MissingOption("--resize", ", ".join(get_args(Resize))))
    if options.fit is None:
        missing.append(MissingOption("--fit", ", ".join(get_args(Fit))))
    if options.fit in CROPPING and options.crop is None:
        missing.append(MissingOption("--crop", "a fraction, as .875", "FRACTION"))
    if options.exif is None:
        missing.append(MissingOption("--exif or --no-exif", "turn images by their EXIF or not", ""))
    if len(missing) > 1:
        parts = ", ".join(each.option for each in missing)
        return [MissingOption("--preprocess", f"{', '.join(PIPELINES)}; or its parts: {parts}")]
    return missing


def _geometry(
    options: InputOptions, pipeline: Pipeline | None, height: int, width: int
) -> Geometry:
    base = pipeline or Pipeline("", "bilinear")
    resize, fit = options.resize or base.resize, options.fit or base.fit
    if options.crop is not None and fit not in CROPPING:
        raise UsageError(
            f"--crop: --fit {fit} cuts no fraction; give --fit crop with it, or leave it out"
        )
    stated: Orientation = "exif" if options.exif else "ignore"
    fraction = base.crop_fraction if options.crop is None else options.crop
    try:
        return Geometry(
            height,
            width,
            resize,
            fit,
            fraction if fit in CROPPING else 1.0,
            base.orientation if options.exif is None else stated,
            # Scaled decoding was measured with the pipeline's own method only.
            base.scaled_decode and resize == base.resize,
        )
    except ContractError as error:
        raise UsageError(str(error)) from None


def _normalisation(
    options: InputOptions, channels: int, pipeline: Pipeline | None, own: Normalisation | None
) -> Normalisation:
    colour = _colour(options, channels, pipeline)
    if options.normalisation or own is None:
        name = options.normalisation or (pipeline.normalisation if pipeline else "")
        return read_normalisation(name, colour)
    if colour in (None, own.colour):
        return own
    if len({*own.mean}) > 1 or len({*own.std}) > 1:
        raise UsageError(
            f"--colour {colour}: the file's own numbers are for {own.colour}; give --normalisation"
        )
    return replace(own, colour=colour, mean=own.mean[:1] * channels, std=own.std[:1] * channels)


def _colour(options: InputOptions, channels: int, pipeline: Pipeline | None) -> Colour | None:
    """Return the images' colour, None where the normalisation's name states it."""
    if channels not in (1, 3):
        raise UsageError(
            f"the model takes {channels} channels; kedge feeds images of 1 (grey) or 3 (rgb, bgr)"
        )
    if options.colour and (options.colour == "grey") != (channels == 1):
        allowed = "grey" if channels == 1 else "rgb, bgr"
        raise UsageError(
            f"--colour {options.colour}: the model takes {channels} channels, allowed are {allowed}"
        )
    if channels == 1:
        return "grey"
    of_pipeline = pipeline.colour if pipeline and pipeline.colour != "rgb" else None
    return options.colour or of_pipeline


def _name(pipeline: Pipeline | None, geometry: Geometry) -> str:
    """Return the name of the pipeline, empty where a part of its geometry was replaced."""
    if not pipeline or pipeline.geometry(geometry.height, geometry.width) != geometry:
        return ""
    # Compared by its code: a card may replace the normalisation of a pipeline.
    return next((name for name, each in PIPELINES.items() if each.code == pipeline.code), "")


def _quoted(value: Any) -> str:
    return f"'{value}'" if " " in str(value) else f"{value}"
