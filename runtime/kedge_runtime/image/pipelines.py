"""Define the training pipelines and normalisations that have a name.

A pipeline says how an image gets the network's size; a normalisation, which numbers its bytes
become.
"""

import re
from dataclasses import replace
from typing import Any, Final, get_args

from kedge_runtime.artefact.contract import Geometry, Normalisation
from kedge_runtime.artefact.kinds import Colour, Fit, Orientation, Resize
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.frozen import dataclass

NORMALISATIONS: Final[dict[str, Normalisation]] = {
    "unit": Normalisation(divisor=255.0),
    "tf": Normalisation(divisor=127.5, mean=(1.0, 1.0, 1.0)),
    "caffe": Normalisation(colour="bgr", mean=(103.939, 116.779, 123.68)),
    "torch": Normalisation(divisor=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "raw": Normalisation(),
}
FORMULAS: Final = {
    "unit": "x / 255",
    "tf": "x / 127.5 - 1",
    "caffe": "x - ImageNet's mean",
    "torch": "(x / 255 - ImageNet's mean) / std",
    "raw": "0 to 255",
}

_KEYS = ("scale", "divisor", "mean", "std")
_NUMBERS = "scale=1/255 mean=.5 std=.5 (without scale or divisor, mean and std are in bytes)"


def read_normalisation(text: str, colour: Colour | None = None) -> Normalisation:
    """Read a name of NORMALISATIONS or numbers, for images of `colour` (None: as the name states).

    Numbers are `key=value` separated by spaces: `scale` (a factor, also as 1/255) or `divisor`,
    then `mean` and `std`, one number or one per channel separated by commas, in the channels'
    order: number = (byte * scale - mean) / std. Raises UsageError.
    """
    normalisation = NORMALISATIONS.get(text) or _from_numbers(text)
    if colour is None or colour == normalisation.colour:
        return normalisation
    try:
        # The user's own numbers are in the order of the channels already.
        turned = {normalisation.colour, colour} == {"rgb", "bgr"} and text in NORMALISATIONS
        order = slice(None, None, -1) if turned else slice(None)
        mean, std = normalisation.mean[order], normalisation.std[order]
        return replace(normalisation, colour=colour, mean=mean, std=std)
    except ContractError as error:
        raise UsageError(f"--normalisation {text}: {error}") from None


def formula(normalisation: Normalisation) -> str:
    """Return the formula that turns a byte x into the network's number, for people."""
    if name := normalisation_name(normalisation):
        return FORMULAS[name]
    value = "x" if normalisation.divisor == 1 else f"x / {normalisation.divisor:g}"
    if any(normalisation.mean):
        value += f" - {_shown(normalisation.mean)}"
    if set(normalisation.std) != {1.0}:
        value = f"({value}) / {_shown(normalisation.std)}"
    return value


def normalisation_text(normalisation: Normalisation) -> str:
    """Return the text that `read_normalisation` reads back: a name, else numbers."""
    if name := normalisation_name(normalisation):
        return name
    mean, std = (",".join(map(repr, row)) for row in (normalisation.mean, normalisation.std))
    return f"divisor={normalisation.divisor!r} mean={mean} std={std}"


def normalisation_name(normalisation: Normalisation) -> str | None:
    """Return the name of a normalisation in NORMALISATIONS, in any order of colours, or None."""
    stated = in_rgb(normalisation)
    for name, candidate in NORMALISATIONS.items():
        if stated.channels == 1 and len(set(candidate.mean)) > 1:
            continue  # a mean for each of three channels
        if replace(in_rgb(candidate), colour=stated.colour) == stated:
            return name
    return None


def in_rgb(normalisation: Normalisation) -> Normalisation:
    """Return the normalisation for channels in the order red, green, blue; grey stays grey."""
    if normalisation.colour != "bgr":
        return normalisation
    mean, std = normalisation.mean[::-1], normalisation.std[::-1]
    return replace(normalisation, colour="rgb", mean=mean, std=std)


def _shown(values: tuple[float, ...]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return f"({', '.join(f'{value:g}' for value in values)})"


def _from_numbers(text: str) -> Normalisation:
    pairs = [part.partition("=") for part in re.split(r"[ ;]+", text.strip()) if part]
    values = {key: value for key, _, value in pairs}
    if not values or set(values) - set(_KEYS) or len(values) != len(pairs):
        names = ", ".join(NORMALISATIONS)
        raise UsageError(f"--normalisation: got {text!r}, allowed are {names}, or {_NUMBERS}")
    if "scale" in values and "divisor" in values:
        raise UsageError(f"--normalisation: got {text!r}: give scale or divisor, not both")
    try:
        return _build(values)
    except (ValueError, ZeroDivisionError, ContractError) as error:
        raise UsageError(f"--normalisation: got {text!r}: {error}; write {_NUMBERS}") from None


def _build(values: dict[str, str]) -> Normalisation:
    scale = values.get("scale", "1")
    numerator, denominator = _number(scale), 1.0
    # 1/255 has no exact float, but 255 has: the byte is divided, as Keras does.
    if scale.count("/") == 1:
        numerator, denominator = map(_number, scale.split("/"))
    divisor = _number(values["divisor"]) if "divisor" in values else denominator / numerator
    return Normalisation(
        divisor=divisor, mean=_three(values.get("mean", "0")), std=_three(values.get("std", "1"))
    )


def _three(text: str) -> tuple[float, ...]:
    values = tuple(map(_number, text.split(",")))
    return values * 3 if len(values) == 1 else values


def _number(text: str) -> float:
    top, _, bottom = text.partition("/")
    return float(top) / float(bottom) if bottom else float(top)


COLOURS: Final[tuple[Colour, ...]] = get_args(Colour)


@dataclass(frozen=True)
class Pipeline:
    """One way to load images, as training programs do.

    `code`: the calls of such a program. `normalisation`: the name of the one that belongs to it;
    empty where the model or the user must state it. `colour`: the order of the loaded channels.
    """

    code: str
    resize: Resize
    fit: Fit = "stretch"
    crop_fraction: float = 1.0
    orientation: Orientation = "ignore"
    scaled_decode: bool = False
    normalisation: str = ""
    colour: Colour = "rgb"

    def geometry(self, height: int, width: int, **changes: Any) -> Geometry:
        """Return the geometry for a size in pixels; `changes`: fields to replace."""
        geometry = Geometry(
            height,
            width,
            self.resize,
            self.fit,
            self.crop_fraction,
            self.orientation,
            self.scaled_decode,
        )
        return replace(geometry, **changes)


PIPELINES: Final[dict[str, Pipeline]] = {
    "load_img": Pipeline("keras.utils.load_img(target_size=...)", "nearest"),
    "flow_from_directory": Pipeline("ImageDataGenerator.flow_from_directory", "nearest"),
    "image_dataset": Pipeline("keras.utils.image_dataset_from_directory", "tf_bilinear"),
    "tf_resize": Pipeline("tf.io.decode_image, tf.image.resize", "tf_bilinear"),
    "tf_hub": Pipeline(
        "tf.image.convert_image_dtype, tf.image.resize", "tf_bilinear", normalisation="unit"
    ),
    "torchvision": Pipeline(
        "Resize(256), CenterCrop(224), ToTensor, Normalize",
        "pillow_bilinear",
        "torchvision_crop",
        crop_fraction=0.875,
        normalisation="torch",
    ),
    "teachable_machine": Pipeline(
        "ImageOps.fit(image, size, LANCZOS), x / 127.5 - 1",
        "pillow_lanczos",
        "pillow_fit",
        normalisation="tf",
    ),
    "pillow": Pipeline("Image.open(...).resize(size)", "pillow_bicubic"),
    "opencv": Pipeline(
        # INTER_LINEAR is up to two steps off INTER_LINEAR_EXACT, one off TensorFlow's.
        "cv2.resize(cv2.imread(...), size)",
        "tf_bilinear",
        orientation="exif",
        colour="bgr",
    ),
    "imagenet": Pipeline(
        "the centre 87.5 %, as ImageNet models are evaluated",
        "pyramid",
        "crop",
        crop_fraction=0.875,
        orientation="exif",
        scaled_decode=True,
    ),
}


def suggest_pipelines(word: str) -> list[str]:
    """Return the names of the pipelines that a word may mean.

    The word may be a function or module that a pipeline calls, such as
    `image_dataset_from_directory`, a part of a name, or a misspelled name.
    """
    calling = [name for name, each in PIPELINES.items() if word in _called_names(each.code)]
    if calling:
        return calling
    lower = word.lower()
    parts = [name for name in PIPELINES if name in lower or (len(lower) > 2 and lower in name)]
    from difflib import get_close_matches

    return parts or get_close_matches(lower, PIPELINES, n=1)


def _called_names(code: str) -> set[str]:
    """Return the names with a dot or a call in a piece of code, and their first and last parts."""
    dotted = re.findall(r"\w+(?:\.\w+)+|\w+(?=\()", code)
    return {part for name in dotted for part in (name, name.split(".")[0], name.split(".")[-1])}
