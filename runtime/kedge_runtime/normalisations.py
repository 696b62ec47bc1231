"""How bytes become the numbers that a network was trained on, by the names that people use.

`tf`, `caffe` and `torch` are the modes of keras.applications (keras/src/applications/
imagenet_utils.py, `preprocess_input`): there they are code, here numbers that travel inside an
artefact. Keras computes them step by step in float32, so a table that does the same, and not in
float64, equals it bit for bit. `raw` is what Keras calls no preprocessing: MobileNetV3,
EfficientNet, EfficientNetV2 and ConvNeXt rescale inside the model. `unit` is x / 255, which most
people's own scripts and TF-Hub's image modules feed.
"""

import re
from dataclasses import replace
from typing import Final, get_args

from kedge_runtime.contract import Colour, Normalisation
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
