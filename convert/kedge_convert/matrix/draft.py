"""Draft a commented `kedge.toml`: for each key its value, and the reason for it in one line."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kedge_convert.matrix.config import WORDS
from kedge_convert.quantise.effort import DEFAULT, FAST
from kedge_runtime.drift.gates import share
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.image.folder import find_images
from kedge_runtime.printable import printable

TARGETS = ("tflite:int8", "onnx:int8")
# Subfolders of a data set, by what trained the model: Keras's and Kaggle's usual names.
TRAINING = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test")
# The limit for a number of images is the highest that holds when this share agrees: freshly
# fine-tuned models had 84 to 100 % on 90 images.
LIMITS = (0.95, 0.9, 0.8, 0.7, 0.5, 0.3)
LIKELY = 0.85


@dataclass(frozen=True)
class Key:
    """Hold a key of [[model]], its value in TOML, and the reason for it."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class ImageFolders:
    """Hold the folder to calibrate on and the one to measure the drift on; `why`: in one line."""

    calibration: Path
    drift: Path
    why: str


@dataclass(frozen=True)
class Draft:
    """Hold a kedge.toml of one model; `agreement`: a share; `measured_on`: a number of images."""

    name: str
    keys: tuple[Key, ...]
    agreement: float | None = None
    measured_on: int = 0


def image_folders(folder: Path) -> ImageFolders:
    """Return the folders for calibration and drift: a data set's own parts, or one for both."""
    parts = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    training = next((parts[name] for name in TRAINING if name in parts), None)
    held_out = next((parts[name] for name in HELD_OUT if name in parts), None)
    if training and held_out:
        return ImageFolders(training, held_out, "the parts of the data set")
    return ImageFolders(
        folder, folder, "the same images calibrate and measure; better: images that training lacked"
    )


def agreement_for(images: int) -> float:
    """Return the highest limit of min_agreement that so many images can hold."""
    if images == 0:
        return LIMITS[-1]
    low = share(round(LIKELY * images), images).low
    return next((limit for limit in LIMITS if low >= limit), LIMITS[-1])


def with_images(name: str, keys: tuple[Key, ...], folder: Path) -> Draft:
    """Return a draft with the gate that the images of a folder can decide. Raises UsageError."""
    count = len(find_images(folder))
    return Draft(name, keys, agreement_for(count), count)


def model_name(source: str) -> str:
    """Return the name of the artefacts: that of the source, in the letters that names may have."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(source).stem).strip("-_")
    return name[:100] or "model"


def quoted(text: str) -> str:
    """Return a string of TOML. Raises UsageError for a name that is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{printable(text)}: the name is no Unicode text; rename it") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def placed(key: str, path: str | Path, config: Path) -> str:
    """Return a path in TOML, relative to the folder of a kedge.toml."""
    text = Path(os.path.relpath(path, config.parent)).as_posix()
    return quoted(f"./{text}" if text.lower() in WORDS[key] else text)


def text(draft: Draft) -> str:
    """Return the file's text."""
    return "\n".join(_lines(draft)) + "\n"


def _lines(draft: Draft) -> Iterator[str]:
    yield "# Written by `kedge init`. Check the comments, then run `kedge build`."
    yield "# docs/build.md explains all keys."
    yield 'out = "out"  # the folder of the artefacts'
    yield ""
    yield "# [options]"
    yield f"# Keep the stock weights of int8 targets; {DEFAULT.name} prepares them, too:"
    yield f'# effort = "{FAST.name}"'
    yield ""
    yield "[[model]]"
    yield f"name = {quoted(draft.name)}"
    for key in draft.keys:
        yield f"# {printable(key.why)}"
        yield f"{key.name} = {key.value}"
    if draft.agreement is not None:
        yield from _gates(draft.agreement, draft.measured_on)


def _gates(agreement: float, images: int) -> Iterator[str]:
    yield ""
    yield "[model.gates]"
    yield f"# {gate_reason(agreement, images)}"
    yield f'min_agreement = "{100 * agreement:.0f}%"'
    yield "# The drop of top-1 in points. It needs ground truth, and about 1000 images:"
    yield '# max_drop = "1pp"'
    yield '# max_bytes = "4MB"'


def gate_reason(agreement: float, images: int) -> str:
    """Return why the gate has its limit."""
    return (
        f"{counted(images, 'image')} hold {100 * agreement:.0f} % if {100 * LIKELY:.0f} % of the "
        "answers agree with the float model; raise it after the first build"
    )
