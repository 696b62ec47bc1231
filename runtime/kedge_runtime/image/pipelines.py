"""Name the pipelines and normalisations that people train with.

Each is a record: how an image gets the network's size, and which numbers its bytes become.
"""

import difflib
import re
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from kedge_runtime.artefact.contract import (
    Colour,
    Fit,
    Geometry,
    Normalisation,
    Orientation,
    Resize,
)
from kedge_runtime.errors import ContractError, UsageError

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
    """Read a name of NORMALISATIONS or numbers, for images of `colour` (None: as the name says).

    Numbers are `key=value` divided by spaces: `scale` (a factor, also as 1/255) or `divisor`, then
    `mean` and `std`, one number or one a channel divided by commas, in the order of the channels;
    number = (byte * scale - mean) / std. Raises UsageError.
    """
    found = NORMALISATIONS.get(text) or _from_numbers(text)
    if colour is None or colour == found.colour:
        return found
    try:
        # A mean of its own for each channel stands in the order of the channels.
        turned = {found.colour, colour} == {"rgb", "bgr"} and text in NORMALISATIONS
        order = slice(None, None, -1) if turned else slice(None)
        return replace(found, colour=colour, mean=found.mean[order], std=found.std[order])
    except ContractError as error:
        raise UsageError(f"--normalisation {text}: {error}") from None


def formula(normalisation: Normalisation) -> str:
    """Return what happens to a byte x, as a person would write it."""
    if name := name_of(normalisation):
        return FORMULAS[name]
    value = "x" if normalisation.divisor == 1 else f"x / {normalisation.divisor:g}"
    if any(normalisation.mean):
        value += f" - {_shown(normalisation.mean)}"
    if set(normalisation.std) != {1.0}:
        value = f"({value}) / {_shown(normalisation.std)}"
    return value


def written(normalisation: Normalisation) -> str:
    """Return the name or the numbers by which `read_normalisation` gives the same again."""
    if name := name_of(normalisation):
        return name
    mean, std = (",".join(map(repr, each)) for each in (normalisation.mean, normalisation.std))
    return f"divisor={normalisation.divisor!r} mean={mean} std={std}"


def name_of(normalisation: Normalisation) -> str | None:
    """Return the name of a normalisation in NORMALISATIONS, whatever its colours, or None."""
    stated = in_rgb(normalisation)
    for name, known in NORMALISATIONS.items():
        if stated.channels == 1 and len(set(known.mean)) > 1:
            continue  # a mean for each of three channels
        if replace(in_rgb(known), colour=stated.colour) == stated:
            return name
    return None


def in_rgb(normalisation: Normalisation) -> Normalisation:
    """Return the same for channels in the order red, green, blue; of grey images as it is."""
    if normalisation.colour != "bgr":
        return normalisation
    mean, std = normalisation.mean[::-1], normalisation.std[::-1]
    return replace(normalisation, colour="rgb", mean=mean, std=std)


def _shown(values: tuple[float, ...]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return f"({', '.join(f'{value:g}' for value in values)})"


def _from_numbers(text: str) -> Normalisation:
    pairs = [word.partition("=") for word in re.split(r"[ ;]+", text.strip()) if word]
    given = {key: value for key, _, value in pairs}
    if not given or set(given) - set(_KEYS) or len(given) != len(pairs):
        names = ", ".join(NORMALISATIONS)
        raise UsageError(f"--normalisation: got {text!r}, allowed are {names}, or {_NUMBERS}")
    if "scale" in given and "divisor" in given:
        raise UsageError(f"--normalisation: got {text!r}: give scale or divisor, not both")
    try:
        return _built(given)
    except (ValueError, ZeroDivisionError, ContractError) as error:
        raise UsageError(f"--normalisation: got {text!r}: {error}; write {_NUMBERS}") from None


def _built(given: dict[str, str]) -> Normalisation:
    numerator, divider = _number(given.get("scale", "1")), 1.0
    # 1/255 has no exact float, but 255 has: the byte is divided, as Keras does.
    if (found := given.get("scale", "")).count("/") == 1:
        numerator, divider = map(_number, found.split("/"))
    divisor = _number(given["divisor"]) if "divisor" in given else divider / numerator
    return Normalisation(
        divisor=divisor, mean=_three(given.get("mean", "0")), std=_three(given.get("std", "1"))
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
    """One way to load images. `what`: in the words of those who use it.

    `normalisation`: the name that goes with it, empty where the model or the user must tell;
    `colour`: the order of the channels that it gives.
    """

    what: str
    resize: Resize
    fit: Fit = "stretch"
    crop_fraction: float = 1.0
    orientation: Orientation = "ignore"
    scaled_decode: bool = False
    normalisation: str = ""
    colour: Colour = "rgb"

    def geometry(self, height: int, width: int, **given: Any) -> Geometry:
        """Return the geometry for a size in pixels; `given`: fields of it that were told apart."""
        known = Geometry(
            height,
            width,
            self.resize,
            self.fit,
            self.crop_fraction,
            self.orientation,
            self.scaled_decode,
        )
        return replace(known, **given)


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


def meant(word: str) -> list[str]:
    """Return the pipelines that a word may stand for: a function or module that the pipeline calls,
    as `image_dataset_from_directory`, a part of a name, or a misspelled one.
    """
    if found := [name for name, known in PIPELINES.items() if word in _called(known.what)]:
        return found
    asked = word.lower()
    parts = [name for name in PIPELINES if name in asked or (len(asked) > 2 and asked in name)]
    return parts or difflib.get_close_matches(asked, PIPELINES, n=1)


def _called(code: str) -> set[str]:
    """Return the names with a dot or a call in a piece of code, and their first and last parts."""
    dotted = re.findall(r"\w+(?:\.\w+)+|\w+(?=\()", code)
    return {part for name in dotted for part in (name, name.split(".")[0], name.split(".")[-1])}
