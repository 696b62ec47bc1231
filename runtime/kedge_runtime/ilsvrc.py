"""The true classes of ILSVRC2012_val_*.JPEG, from the files that go about with them.

Three kinds: the development kit (a folder with `data/meta.mat` and
`data/ILSVRC2012_validation_ground_truth.txt`, or that text file beside its meta.mat), and a text
file with the synset of one picture a line, as TensorFlow's Inception scripts bring one.

The kit's text file holds a number a picture, 1..1000, and its trap is that these ILSVRC2012_IDs
don't follow the order of the synsets, as the outputs of Keras, Caffe and torchvision do: number 1
isn't tench. Only meta.mat tells which synset a number is. Less one and taken for an output, nearly
every picture would count as wrong.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from kedge_runtime.contract import Label
from kedge_runtime.errors import UsageError
from kedge_runtime.files import is_folder

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"

_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})$")
_SYNSET = re.compile(r"n\d{8}")
# MATLAB writes text with one byte or with two a character, lower byte first.
_SYNSETS = re.compile(rb"n\d{8}|n\0(?:\d\0){8}")
# MAT-File Format, version 5: a header of 128 bytes; elements with type and length; type 15 is zlib.
_MAT_HEADER, _MAT_COMPRESSED = 128, 15
_MAT_MOST = 64 << 20


def is_list(lines: Sequence[str]) -> bool:
    """Whether lines are of one word each, a number or a synset, and so of no table."""
    return all(line.isdigit() or _SYNSET.fullmatch(line) for line in lines[:100])


def ground_truth(place: Path) -> Path:
    """Return the list of a development kit, or the file itself. Raises UsageError."""
    if not is_folder(place):
        return place
    for folder in (place, place / "data"):
        if (folder / GROUND_TRUTH).is_file():
            return folder / GROUND_TRUTH
    raise UsageError(f"--labels: {place}: there is no {GROUND_TRUTH} in it")


def number_of(image: Path) -> int | None:
    """Return the number of a validation picture, counted from 1, or None for another name."""
    found = _PICTURE.match(image.stem)
    return int(found[1]) if found else None


def synsets(lines: Sequence[str], path: Path, labels: Sequence[Label]) -> list[str]:
    """Return the synset of each picture, by the lines of the list at `path`.

    Raises UsageError for numbers without the meta.mat that explains them.
    """
    if not any(line.isdigit() for line in lines):
        return list(lines)
    order = _order(path.with_name(META), path, labels)
    by_number = {str(number): synset for number, synset in enumerate(order, 1)}
    try:
        return [by_number[line] for line in lines]
    except KeyError as error:
        raise UsageError(f"{path}: {error} is none of the numbers 1 to 1000") from None


def _order(meta: Path, path: Path, labels: Sequence[Label]) -> list[str]:
    """Return the synsets by ILSVRC2012_ID, of which the first 1000 of meta.mat are the classes."""
    if not meta.is_file():
        raise UsageError(
            f"{path}: its numbers aren't in the order of the synsets; only the development kit's "
            f"{META} tells what they are: lay it beside, or give a list of synsets"
        )
    found = _SYNSETS.findall(b"".join(_elements(meta)))
    order = [word.replace(b"\0", b"").decode() for word in found][:1000]
    if len(set(order)) != 1000 or set(order) != {label.id for label in labels}:
        raise UsageError(f"{meta}: doesn't begin with the model's 1000 synsets")
    return order


def _elements(meta: Path) -> Iterator[bytes]:
    content = meta.read_bytes()
    at = _MAT_HEADER
    try:
        while at < len(content):
            kind, length = struct.unpack_from("<II", content, at)
            data = content[at + 8 : at + 8 + length]
            packed = kind == _MAT_COMPRESSED
            yield zlib.decompressobj().decompress(data, _MAT_MOST) if packed else data
            at += 8 + length
    except (struct.error, zlib.error) as error:
        raise UsageError(f"{meta}: no MAT file of version 5 ({error})") from None
