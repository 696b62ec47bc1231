"""Draft a commented `kedge.toml`: for each key its value, and the reason for it in one line."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kedge_convert.matrix.config import WORDS
from kedge_convert.quantise.effort import DEFAULT, FAST
from kedge_runtime.drift.gates import Holds, holds, share
from kedge_runtime.drift.sentences import held
from kedge_runtime.errors import UsageError
from kedge_runtime.image.folder import find_images
from kedge_runtime.printable import printable

TARGETS = ("tflite:int8", "onnx:int8")
# Subfolders of a data set, by what trained the model: Keras's and Kaggle's usual names.
TRAINING = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test")
AFTER = "After the first build, kedge drift names the exact limit, by the flips that it counted."
# Per cent of the images that flip at most: freshly fine-tuned models had up to 16 on 90 images.
FLIPS = 16


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


def flips_for(images: int) -> int:
    """Return how many of so many images may flip, before any was measured."""
    return -(-FLIPS * images // 100)


def holds_for(images: int) -> Holds:
    """Return what `kedge drift` would say that so many images can hold, with so many flips."""
    return holds(None, share(images - flips_for(images), images))


def with_images(name: str, keys: tuple[Key, ...], folder: Path) -> Draft:
    """Return a draft with the gate that the images of a folder can decide. Raises UsageError."""
    count = len(find_images(folder))
    return Draft(name, keys, holds_for(count).min_agreement, count)


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
    yield f"# {gate_reason(images)}"
    yield f"# {AFTER}"
    yield gate_line(agreement)
    yield "# The drop of top-1 in points. It needs ground truth, and about 1000 images:"
    yield '# max_drop = "1pp"'
    yield '# max_bytes = "4MB"'


def gate_line(agreement: float) -> str:
    """Return the gate in TOML."""
    return f'min_agreement = "{round(100 * agreement, 1):g}%"'


def gate_reason(images: int) -> str:
    """Return why the gate has its limit, in the words of `kedge drift`."""
    told = held(holds_for(images), images).rstrip(".").replace("\N{NO-BREAK SPACE}", " ")
    return f"{told} if up to {flips_for(images)} flip (a cautious guess)."
