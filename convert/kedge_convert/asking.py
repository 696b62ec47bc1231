"""Ask for the options that a model needs, all at once, with the command to run."""

import json
import re
import shlex
from collections.abc import Sequence

from kedge_convert.images import CALIBRATE
from kedge_convert.load import registry
from kedge_convert.load.request import SourceRequest
from kedge_runtime.errors import UsageError
from kedge_runtime.image import input_options
from kedge_runtime.image.input_options import MissingOption


class MissingError(UsageError):
    """Options of the user, or keys of a kedge.toml, that are missing."""


EXIF = "--exif or --no-exif"
# Values in the example command at the end of a message.
EXAMPLES = {
    "--preprocess": "image_dataset",
    "--normalisation": "unit",
    "--labels": "labels.txt",
    CALIBRATE: "photos",
    "--resize": "bilinear",
    "--fit": "stretch",
    "--crop": ".875",
    EXIF: "--no-exif",
}


def refuse_idle(request: SourceRequest) -> None:
    """Raise UsageError for an option that would change nothing."""
    is_path = registry.is_path(request.model)
    if request.card and not is_path:
        raise UsageError(f"--card {request.card}: {request.model} is its own card; leave it out")
    if request.weights != SourceRequest.weights and not registry.takes_weights(request.model):
        raise UsageError(f"--weights: {request.model} has its own weights; name a card instead")


def refuse(request: SourceRequest, missing: Sequence[MissingOption]) -> None:
    """Raise UsageError that asks for all that is missing and says what to run, if anything is."""
    if not missing:
        return
    options = [each.option for each in missing]
    model, advice = shlex.quote(request.model), ""
    if {"--preprocess", "--normalisation"}.intersection(options):
        advice = f". Labelled images tell the pixels: kedge fit-input {model} --images DIR"
    asked = f"{request.model}: {input_options.request_for(missing)}{advice}"
    if request.in_toml:
        lines = ", ".join(_toml_example(option) for option in options)
        raise MissingError(f"{_in_toml(asked)}. Add to its [[model]], for example: {lines}")
    words = " ".join(_example(option) for option in options)
    command = request.command or f"kedge convert {model}"
    raise MissingError(f"{asked}. Then run, for example:", run=f"{command} {words}")


def _example(option: str) -> str:
    example = EXAMPLES[option]
    return example if example.startswith("--") else f"{option} {example}"


def _in_toml(text: str) -> str:
    """Return a text whose options are keys of kedge.toml; those of fit-input stay."""
    return re.sub(r"--(?!images)([a-z])", r"\1", text.replace(EXIF, "exif"))


def _toml_example(option: str) -> str:
    values = {EXIF: "false", "--crop": "0.875"}
    return f"{_in_toml(option)} = {values.get(option, json.dumps(EXAMPLES[option]))}"
