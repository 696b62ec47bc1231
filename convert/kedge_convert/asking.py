"""What a conversion must be told, asked for once, in one message, before TensorFlow is loaded.

Everything that a look at files and options can tell is checked here, in well under a second. What
only the loaded model tells (a normalisation inside a SavedModel, say) is asked for by
`source.load_source`, in the same words.
"""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kedge_convert.images import CALIBRATE, MINIMUM
from kedge_convert.load import registry
from kedge_convert.load.application import DEMO
from kedge_convert.load.outline import Outline, outline
from kedge_convert.load.request import SourceRequest
from kedge_convert.settle import class_folders, classes
from kedge_models.cards import card
from kedge_models.labels.lists import imagenet
from kedge_runtime.artefact.labels import read_labels
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image import input_options
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.input_options import MissingOption
from kedge_runtime.image.pipelines import NORMALISATIONS

if TYPE_CHECKING:
    from kedge_convert.job import Job

# What stands for a fact in the command that a message ends with.
EXAMPLES = {
    "--preprocess": "image_dataset",
    "--normalisation": "unit",
    "--labels": "labels.txt",
    CALIBRATE: "photos",
    "--resize": "bilinear",
    "--fit": "stretch",
    "--crop": ".875",
    "--exif or --no-exif": "--no-exif",
}
LEAST = 3  # images to calibrate with: weights, reach and ranges are judged on different ones
IMAGES = MissingOption(CALIBRATE, "a folder of about 200 images like those it will see")


def check(job: "Job") -> None:
    """Raise UsageError for what is wrong or missing, as far as files and options tell.

    All that is missing comes in one message, which ends with the command to run.
    """
    request = job.request
    if not registry.is_path(request.model) and request.model != DEMO:
        card(request.model)
    refuse_idle(request)
    registry.check(request)
    if request.card:
        card(request.card)
    _check_sampling(job)
    known = outline(Path(request.model)) if registry.is_path(request.model) else Outline()
    _check_labels(request, known)
    refuse(request, list(_missing(job, known)))


def refuse_idle(request: SourceRequest) -> None:
    """Raise UsageError for an option that would change nothing: the user expects that it does."""
    is_path = registry.is_path(request.model)
    if request.card and not is_path:
        raise UsageError(f"--card {request.card}: {request.model} is its own card; leave it out")
    if request.weights != SourceRequest.weights and not registry.takes_weights(request.model):
        raise UsageError(f"--weights: {request.model} has its own weights; name a card instead")


def refuse(request: SourceRequest, missing: Sequence[MissingOption]) -> None:
    """Raise UsageError that asks for all that is missing, and says what to run; or do nothing."""
    if not missing:
        return
    options = [each.option for each in missing]
    model, advice = shlex.quote(request.model), ""
    if {"--preprocess", "--normalisation"}.intersection(options):
        advice = f". Labelled images tell the pixels: kedge fit-input {model} --images DIR"
    words = " ".join(_example(option) for option in options)
    command = request.command or f"kedge convert {model}"
    asked = f"{request.model}: {input_options.request_for(missing)}{advice}"
    raise UsageError(f"{asked}. Then run, for example: {command} {words}")


def _example(option: str) -> str:
    example = EXAMPLES[option]
    return example if example.startswith("--") else f"{option} {example}"


def _missing(job: "Job", known: Outline) -> Iterator[MissingOption]:
    request = job.request
    own = registry.is_path(request.model) and request.card is None
    if own and (known.bare or not known.sized):
        # What a model normalises itself, only the loaded one tells.
        inner = None if known.bare else NORMALISATIONS["raw"]
        yield from input_options.missing_options(request.pixels, normalisation=inner)
    named = request.labels or request.head
    if own and not named and known.outputs not in (None, 1, len(class_folders(request.folder))):
        yield classes(known.outputs or 0)
    yield from _missing_images(job)


def check_images(job: "Job") -> None:
    """Raise UsageError for images that are missing, or too few."""
    _check_sampling(job)
    refuse(job.request, list(_missing_images(job)))


def _missing_images(job: "Job") -> Iterator[MissingOption]:
    if _calibrated(job) and job.calibrate is None and job.request.model != DEMO:
        yield IMAGES


def _calibrated(job: "Job") -> list[str]:
    return [str(target) for target in job.targets if target.needs_calibration]


def _check_sampling(job: "Job") -> None:
    """Raise UsageError for a folder that holds too few images, or where too few are asked for."""
    count, needing = job.sampling.calibration, _calibrated(job)
    if needing and count < LEAST:
        raise UsageError(
            f"--calibrate-count {count}: too few for {needing[0]}, allowed are {LEAST} and more "
            "(about 200 are good)"
        )
    least = min(MINIMUM, count + job.sampling.check)
    if job.calibrate is not None and (found := len(find_images(job.calibrate, CALIBRATE))) < least:
        raise UsageError(
            f"{CALIBRATE}: {job.calibrate} holds {counted(found, 'image')}, at least {least} are "
            "needed; about 200 are good"
        )


def _check_labels(request: SourceRequest, known: Outline) -> None:
    """Raise UsageError where the label file can't be read, or has another number of classes."""
    if not request.labels or request.labels == "imagenet":
        return
    count = len(read_labels(Path(request.labels)))
    if known.outputs and known.outputs > 1 and count != known.outputs:
        wanted = (known.outputs, known.outputs - 1 if count == len(imagenet()) else known.outputs)
        if count not in wanted:
            raise UsageError(
                f"{request.model}: it has {known.outputs} classes, but {request.labels} has "
                f"{counted(count, 'line')}: a label file has one class a line, in the order of the "
                "output"
            )
