"""Read the true classes of images from what people have: names, folders, a file, ILSVRC's own."""

import csv
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from kedge_runtime.artefact.contract import Label
from kedge_runtime.errors import UsageError
from kedge_runtime.files import is_folder, read_text

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
    raise UsageError(f"--truth: {place}: there is no {GROUND_TRUTH} in it")


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


Classes = dict[str, int]
Truth = dict[Path, int]


def read_truth(
    images: Sequence[Path], labels: tuple[Label, ...], table: Path | None = None
) -> Truth | None:
    """Return the class of each image, an index into `labels`, or None when nothing tells.

    `table`: text in UTF-8 of `file,label` or, without commas, `file label`, with or without that
    heading. `file` is a path from any folder above the image, or its name; `label` is a class's id,
    name or, where no id or name is another number, index from 0. Or a list, see `ilsvrc`.
    Names are compared without case, with `_` and `-` as spaces. A scheme that knows one image must
    know all: raises UsageError naming those without a class, for a table that can't be read or
    gives a picture two labels, and for a name that two classes share.
    """
    if table is not None:
        return _complete(_by_file(images, labels, table), images, str(table))
    for what, scheme in SCHEMES.values():
        if found := scheme(images, labels):
            return _complete(found, images, what)
    return None


def _by_prefix(images: Sequence[Path], labels: tuple[Label, ...]) -> Truth:
    ids = {label.id: i for i, label in enumerate(labels)}
    prefixes = {image: image.stem.partition("_")[0] for image in images}
    return {image: ids[prefix] for image, prefix in prefixes.items() if prefix in ids}


def _by_folder(images: Sequence[Path], labels: tuple[Label, ...]) -> Truth:
    classes = _classes(labels)
    folders = {image: _plain(image.parent.name) for image in images}
    return _known(folders, classes, labels)


Scheme = Callable[[Sequence[Path], tuple[Label, ...]], Truth]

# What a user calls a scheme -> what it looks at, and how.
SCHEMES: dict[str, tuple[str, Scheme]] = {
    "synset": ("file names", _by_prefix),
    "folders": ("folders", _by_folder),
}


def truth_by(how: str, images: Sequence[Path], labels: tuple[Label, ...]) -> Truth | None:
    """Return the same as `read_truth` by what a user says: `auto`, `none`, one of SCHEMES, or a
    file. Raises UsageError as well when the scheme that was asked for knows no picture.
    """
    if how == "none":
        return None
    if how == "auto":
        return read_truth(images, labels)
    if how not in SCHEMES:
        return read_truth(images, labels, Path(how))
    what, scheme = SCHEMES[how]
    if found := scheme(images, labels):
        return _complete(found, images, what)
    raise UsageError(f"--truth {how}: {what} tell the class of no picture, as {images[0]}")


def _by_file(images: Sequence[Path], labels: tuple[Label, ...], place: Path) -> Truth:
    path = ground_truth(place)
    lines = [line for line in map(str.strip, _text(path).splitlines()) if line]
    if lines and is_list(lines):
        return _by_list(images, labels, lines, path)
    return _by_table(images, labels, lines, path)


def _by_list(
    images: Sequence[Path], labels: tuple[Label, ...], lines: Sequence[str], path: Path
) -> Truth:
    ids = {label.id: i for i, label in enumerate(labels)}
    order = synsets(lines, path, labels)
    numbers = {image: number_of(image) for image in images}
    return {
        image: ids[order[number - 1]]
        for image, number in numbers.items()
        if number and number <= len(order) and order[number - 1] in ids
    }


def _by_table(
    images: Sequence[Path], labels: tuple[Label, ...], lines: Sequence[str], table: Path
) -> Truth:
    classes, wanted = _with_indices(_classes(labels), len(labels))
    rows = _by_name(_rows(lines, table), table)
    if rows.get("file") == "label":
        del rows["file"]
    words = {image: rows[key] for image in images if (key := _entry(image, rows)) is not None}
    for word in words.values():
        if _plain(word) not in classes:
            raise UsageError(f"{table}: {word!r} is no class: {wanted}")
    return _known({image: _plain(word) for image, word in words.items()}, classes, labels)


def _with_indices(classes: Classes, count: int) -> tuple[Classes, str]:
    """Add the indices unless a number is another class's own word; say what a table may hold."""
    number = next((word for word, i in classes.items() if word.isdecimal() and int(word) != i), "")
    if number:
        return classes, f"give its id or name; no index, as {number!r} is a class's own id or name"
    indices = {str(i): i for i in range(count)}
    return indices | classes, "give its id, name or index"


def _by_name(rows: Iterable[tuple[str, str]], table: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, word in rows:
        if _plain(found.setdefault(name, word)) != _plain(word):
            raise UsageError(f"{table}: {name} is {found[name]!r} and {word!r}: leave one of them")
    return found


def _rows(lines: Sequence[str], table: Path) -> Iterator[tuple[str, str]]:
    commas = any("," in line for line in lines)
    # Without commas the last word is the label: Caffe's `ILSVRC2012_val_00000001.JPEG 65`.
    split = csv.reader(lines) if commas else (line.rsplit(maxsplit=1) for line in lines)
    try:
        for number, row in enumerate(split, 1):
            if len(row) != 2:
                raise UsageError(f"{table}:{number}: has {len(row)} columns, not file,label")
            yield row[0].strip().replace("\\", "/"), row[1].strip()
    except csv.Error as error:
        raise UsageError(f"{table} is no CSV: {error}") from None


def _text(table: Path) -> str:
    try:
        return read_text(table)
    except OSError as error:
        raise UsageError(f"can't read the table {table}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{table} is no CSV in UTF-8: {error}") from None


def _entry(image: Path, rows: dict[str, str]) -> str | None:
    """Return the longest end of the image's path that stands in the table."""
    parts = PurePosixPath(image.as_posix()).parts
    ends = ("/".join(parts[at:]) for at in range(len(parts)))
    return next((end for end in ends if end in rows), None)


def _classes(labels: tuple[Label, ...]) -> Classes:
    """Return the index of every name and, before them, of every id; AMBIGUOUS for shared names."""
    names = [_plain(label.name) for label in labels]
    counts = Counter(names)
    by_name = {name: i if counts[name] == 1 else AMBIGUOUS for i, name in enumerate(names)}
    return by_name | {_plain(label.id): i for i, label in enumerate(labels)}


AMBIGUOUS = -1


def _known(words: dict[Path, str], classes: Classes, labels: tuple[Label, ...]) -> Truth:
    found = {image: classes[word] for image, word in words.items() if word in classes}
    for image, index in found.items():
        if index == AMBIGUOUS:
            word = words[image]
            ids = ", ".join(label.id for label in labels if _plain(label.name) == word)
            raise UsageError(f"{image}: {word!r} names the classes {ids}: give the id instead")
    return found


def _plain(text: str) -> str:
    return text.strip().casefold().replace("_", " ").replace("-", " ")


def _complete(found: Truth, images: Sequence[Path], where: str) -> Truth:
    missing = [image.name for image in images if image not in found]
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{where} tell the class of {len(found)} pictures, but not of {len(missing)}: {names}"
        )
    return found
