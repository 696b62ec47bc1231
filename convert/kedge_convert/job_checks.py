"""Check a conversion's request before TensorFlow is loaded, and ask for all that is missing.

Everything that files and options tell is checked here. What only the loaded model tells (a
normalisation inside a SavedModel, say) is asked for by `source.load_source`, in the same words.
"""

from collections.abc import Iterator
from pathlib import Path

from kedge_convert.asking import refuse, refuse_idle
from kedge_convert.images import CALIBRATE, MINIMUM
from kedge_convert.job import Job
from kedge_convert.load import registry
from kedge_convert.load.application import DEMO
from kedge_convert.load.outline import Outline, outline
from kedge_convert.load.request import SourceRequest
from kedge_convert.settle import class_folders, classes
from kedge_models.cards import card, imagenet
from kedge_runtime.artefact.labels import read_labels
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image import input_options
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.input_options import MissingOption
from kedge_runtime.image.pipelines import NORMALISATIONS

LEAST = 3  # calibration images: weights, equalisation strength and ranges need different ones
IMAGES = MissingOption(CALIBRATE, "a folder of about 200 images like those it will see")


def check(job: Job) -> None:
    """Raise UsageError for wrong or missing options, as far as files and options tell.

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
    outlined = outline(Path(request.model)) if registry.is_path(request.model) else Outline()
    _check_labels(request, outlined)
    refuse(request, list(_missing(job, outlined)))


def check_missing(job: Job) -> None:
    """Raise MissingError for options that are missing, and nothing for a model that can't be read.

    A kedge.toml holds many models: a broken file fails its own cells.
    """
    is_path = registry.is_path(job.request.model)
    outlined = outline(Path(job.request.model)) if is_path else Outline()
    refuse(job.request, list(_missing(job, outlined)))


def _missing(job: Job, outlined: Outline) -> Iterator[MissingOption]:
    request = job.request
    own = registry.is_path(request.model) and request.card is None
    if own and (outlined.bare or not outlined.sized):
        # Only the loaded model tells whether it normalises itself.
        inner = None if outlined.bare else NORMALISATIONS["raw"]
        yield from input_options.missing_options(request.pixels, normalisation=inner)
    named = request.labels or request.head
    if own and not named and outlined.outputs not in (None, 1, len(class_folders(request.folder))):
        yield classes(outlined.outputs or 0)
    yield from _missing_images(job)


def check_images(job: Job) -> None:
    """Raise UsageError for images that are missing, or too few."""
    _check_sampling(job)
    refuse(job.request, list(_missing_images(job)))


def _missing_images(job: Job) -> Iterator[MissingOption]:
    has_images = job.calibrate is not None or job.synthetic or job.request.model == DEMO
    if _calibrated(job) and not has_images:
        yield IMAGES


def _calibrated(job: Job) -> list[str]:
    return [str(target) for target in job.targets if target.needs_calibration]


def _check_sampling(job: Job) -> None:
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


def _check_labels(request: SourceRequest, outlined: Outline) -> None:
    """Raise UsageError for a label file that can't be read or has another number of classes."""
    if not request.labels or request.labels == "imagenet":
        return
    count = len(read_labels(Path(request.labels)))
    if outlined.outputs and outlined.outputs > 1 and count != outlined.outputs:
        wanted = (
            outlined.outputs,
            outlined.outputs - 1 if count == len(imagenet()) else outlined.outputs,
        )
        if count not in wanted:
            raise UsageError(
                f"{request.model}: it has {outlined.outputs} classes, but {request.labels} has "
                f"{counted(count, 'line')}: a label file has one class a line, in the order of the "
                "output"
            )
