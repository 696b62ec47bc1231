"""Check a conversion's request before TensorFlow is loaded, and ask for all that is missing.

Everything that files and options tell is checked here, in well under a second. Of a Keras file only
the configuration is read, JSON: its input, classes and normalisation. What only the loaded model
tells (a normalisation inside a SavedModel, say) is asked for by `source.load_source`, in the same
words.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedge_convert.images import CALIBRATE, MINIMUM
from kedge_convert.load import registry
from kedge_convert.load.application import DEMO
from kedge_convert.load.configuration import is_hdf5
from kedge_convert.load.request import SourceRequest
from kedge_convert.settle import class_folders, classes
from kedge_convert.toolkit import require
from kedge_models.cards import card, imagenet
from kedge_runtime.artefact.labels import read_labels
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image import input_options
from kedge_runtime.image.folder import find_images
from kedge_runtime.image.input_options import MissingOption
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.modelfile.archives import FAULTS, opened

if TYPE_CHECKING:
    from kedge_convert.job import Job


# Classes of layers, of Keras 2 and 3, that may change the numbers of a pixel by constants.
_ARITHMETIC = frozenset(
    {"Add", "Divide", "GetItem", "Multiply", "Normalization", "Rescaling", "SlicingOpLambda"}
    | {"Subtract", "TFOpLambda", "TrueDivide", "Lambda", "Resizing"}
)
# Layers with weights before which every normalisation of pixels lies.
_WEIGHED = frozenset(
    {"BatchNormalization", "Conv2D", "Dense", "DepthwiseConv2D", "QuantizeWrapperV2"}
    | {"PruneLowMagnitude", "SeparableConv2D", "LayerNormalization", "QuantizeLayer"}
)


@dataclass(frozen=True)
class Outline:
    """The facts in a configuration; None where it leaves them open.

    `shape`: the input's, without the batch; `outputs`: the number of classes; `bare`: it certainly
    has no normalisation of its own; `sized`: it may resize images itself.
    """

    shape: tuple[int | None, ...] | None = None
    outputs: int | None = None
    bare: bool = False
    sized: bool = True


def outline(path: Path) -> Outline:
    """Return the outline of a model's file; a graph has no layer that resizes."""
    if path.is_dir() or path.suffix == ".pb":
        return Outline(sized=False)
    layers = list(_layers(_configuration(path)))
    kinds = [str(layer.get("class_name")) for layer in layers]
    first = next((i for i, kind in enumerate(kinds) if kind in _WEIGHED), None)
    if first is None:
        return Outline()
    dense = [layer for layer in layers if layer.get("class_name") == "Dense"]
    # The last layer alone: layers behind a Dense may change the number of outputs.
    last = dense[-1:] if kinds[-1] in ("Dense", "Activation", "Softmax", "Dropout") else []
    units = last[0]["config"].get("units") if last else None
    return Outline(
        shape=_shape(layers[: first + 1]),
        outputs=units if isinstance(units, int) else None,
        sized="Resizing" in kinds[:first],
        bare=not _ARITHMETIC.intersection(kinds[:first]) and _is_plain(kinds[:first]),
    )


def _is_plain(kinds: list[str]) -> bool:
    """Whether nothing before the first weights is of a class that could hold more."""
    known = ("InputLayer", "ZeroPadding2D", "Rand", "Gaussian", "Dropout", "Reshape", "Flatten")
    return all(kind.startswith(known) for kind in kinds)


def _shape(layers: list[dict[str, Any]]) -> tuple[int | None, ...] | None:
    for layer in layers:
        config = layer.get("config")
        if isinstance(config, dict):
            shape = config.get("batch_input_shape") or config.get("batch_shape")
            if isinstance(shape, list) and shape:
                return tuple(shape[1:])
    return None


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the layers that are no models themselves, in the order of the file."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else inner
    if isinstance(layers, list):
        for layer in layers:
            yield from _layers(layer)
    elif isinstance(config, dict) and isinstance(inner, dict):
        yield config


def _configuration(path: Path) -> Any:
    """Return a file's configuration, None where it has no readable one."""
    try:
        if is_hdf5(path):
            with require("h5py").File(path) as file:
                return json.loads(file.attrs["model_config"])
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        with opened(path) as archive:
            return json.loads(archive.read("config.json"))
    # The loader says what is wrong with a file.
    except (KeyError, OSError, RecursionError, *FAULTS):
        return None


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
LEAST = 3  # calibration images: weights, equalisation strength and ranges need different ones
IMAGES = MissingOption(CALIBRATE, "a folder of about 200 images like those it will see")


def check(job: "Job") -> None:
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


def check_missing(job: "Job") -> None:
    """Raise MissingError for options that are missing, and nothing for a model that can't be read.

    A kedge.toml holds many models: a broken file fails its own cells.
    """
    is_path = registry.is_path(job.request.model)
    outlined = outline(Path(job.request.model)) if is_path else Outline()
    refuse(job.request, list(_missing(job, outlined)))


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


def _missing(job: "Job", outlined: Outline) -> Iterator[MissingOption]:
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


def check_images(job: "Job") -> None:
    """Raise UsageError for images that are missing, or too few."""
    _check_sampling(job)
    refuse(job.request, list(_missing_images(job)))


def _missing_images(job: "Job") -> Iterator[MissingOption]:
    has_images = job.calibrate is not None or job.synthetic or job.request.model == DEMO
    if _calibrated(job) and not has_images:
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
