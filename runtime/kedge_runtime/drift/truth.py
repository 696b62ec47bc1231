"""Read the ground truth of images: file names, folders, a table, or ILSVRC's own files."""

import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from kedge_runtime.artefact.contract import Label
from kedge_runtime.errors import UsageError, counted
from kedge_runtime.files import is_folder, read_text

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"

_IMAGE = r"ILSVRC2012_val_(\d{8})$"
_SYNSET = r"n\d{8}"
# MATLAB writes text with one byte or with two a character, lower byte first.
_SYNSETS = rb"n\d{8}|n\0(?:\d\0){8}"
# MAT-File Format, version 5: a header of 128 bytes; elements with type and length; type 15 is zlib.
_MAT_HEADER, _MAT_COMPRESSED = 128, 15
_MAT_MOST = 64 << 20


def is_list(lines: Sequence[str]) -> bool:
    """Whether each line is one number or synset, so that the file is no table."""
    return all(line.isdigit() or re.fullmatch(_SYNSET, line) for line in lines[:100])


def ground_truth(path: Path) -> Path:
    """Return the list of a development kit, or the file itself. Raises UsageError."""
    if not is_folder(path):
        return path
    for folder in (path, path / "data"):
        if (folder / GROUND_TRUTH).is_file():
            return folder / GROUND_TRUTH
    raise UsageError(f"--truth: {path}: there is no {GROUND_TRUTH} in it")


def number_of(image: Path) -> int | None:
    """Return the number of a validation image, counted from 1, or None for another name."""
    match = re.match(_IMAGE, image.stem)
    return int(match[1]) if match else None


def synsets(lines: Sequence[str], path: Path, labels: Sequence[Label]) -> list[str]:
    """Return the synset of each line of the list at `path`.

    Raises UsageError for numbers without meta.mat, which maps them to synsets.
    """
    if not any(line.isdigit() for line in lines):
        return list(lines)
    order = _order(path.with_name(META), path, labels)
    by_number = {str(number): synset for number, synset in enumerate(order, 1)}
    try:
        return [by_number[line] for line in lines]
    except KeyError as error:
        raise UsageError(f"{path}: has {error}, allowed are the numbers 1 to 1000") from None


def _order(meta: Path, path: Path, labels: Sequence[Label]) -> list[str]:
    """Return the synsets by ILSVRC2012_ID, of which the first 1000 of meta.mat are the classes."""
    if not meta.is_file():
        raise UsageError(
            f"{path}: its numbers don't follow the order of the synsets; put the development kit's "
            f"{META} beside it, or give a list of synsets"
        )
    words = re.findall(_SYNSETS, b"".join(_elements(meta)))
    order = [word.replace(b"\0", b"").decode() for word in words][:1000]
    if len(set(order)) != 1000 or set(order) != {label.id for label in labels}:
        raise UsageError(f"{meta}: its first 1000 synsets are not the model's classes")
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
        raise UsageError(f"{meta}: not a MAT file of version 5 ({error})") from None


Classes = dict[str, int]
Truth = dict[Path, int]


def read_truth(
    images: Sequence[Path], labels: tuple[Label, ...], table: Path | None = None
) -> Truth | None:
    """Return the class of each image, an index into `labels`, or None without ground truth.

    `table`: UTF-8 text `file,label` or, without commas, `file label`, with or without a heading.
    `file` is a path from any folder above the image, or its name. `label` is a class's id, name or
    index from 0; no index where an id or a name is another number. Or a list of ILSVRC.
    Names are compared without case, with `_` and `-` as spaces. A scheme that has one image must
    have all. Raises UsageError for images without a class, for a table that can't be read or has
    two labels for an image, and for a name that two classes share.
    """
    if table is not None:
        return _complete(_by_file(images, labels, table), images, str(table))
    for evidence, scheme in SCHEMES.values():
        if truth := scheme(images, labels):
            return _complete(truth, images, evidence)
    return None


def _by_prefix(images: Sequence[Path], labels: tuple[Label, ...]) -> Truth:
    ids = {label.id: i for i, label in enumerate(labels)}
    prefixes = {image: image.stem.partition("_")[0] for image in images}
    return {image: ids[prefix] for image, prefix in prefixes.items() if prefix in ids}


def _by_folder(images: Sequence[Path], labels: tuple[Label, ...]) -> Truth:
    classes = _classes(labels)
    folders = {image: _plain(image.parent.name) for image in images}
    return _indices(folders, classes, labels)


Scheme = Callable[[Sequence[Path], tuple[Label, ...]], Truth]

# The name of a scheme -> the evidence that it reads, and its function.
SCHEMES: dict[str, tuple[str, Scheme]] = {
    "synset": ("file names", _by_prefix),
    "folders": ("folders", _by_folder),
}
NO_MATCH = {
    "synset": "no file name begins with a class's id",
    "folders": "no folder name matches a class",
}


def truth_by(how: str, images: Sequence[Path], labels: tuple[Label, ...]) -> Truth | None:
    """Return the ground truth as `read_truth` does, by the value of `--truth`.

    `how`: `auto`, `none`, one of SCHEMES, or a file. Raises UsageError also when a named scheme has
    no image.
    """
    if how == "none":
        return None
    if how == "auto":
        return read_truth(images, labels)
    if how not in SCHEMES:
        return read_truth(images, labels, Path(how))
    evidence, scheme = SCHEMES[how]
    if truth := scheme(images, labels):
        return _complete(truth, images, evidence)
    raise UsageError(f"--truth {how}: {NO_MATCH[how]}, for example {images[0]}")


def _by_file(images: Sequence[Path], labels: tuple[Label, ...], file: Path) -> Truth:
    path = ground_truth(file)
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
    classes, allowed = _with_indices(_classes(labels), len(labels))
    rows = _by_name(_rows(lines, table), table)
    if rows.get("file") == "label":
        del rows["file"]
    words = {image: rows[key] for image in images if (key := _entry(image, rows)) is not None}
    for word in words.values():
        if _plain(word) not in classes:
            raise UsageError(f"{table}: {word!r} is not a class; {allowed}")
    return _indices({image: _plain(word) for image, word in words.items()}, classes, labels)


def label_sets_by(
    table: Path, images: Sequence[Path], labels: tuple[Label, ...]
) -> dict[Path, frozenset[int]]:
    """Return the set of labels of each image, as indices into `labels`.

    `table`: as of `read_truth`, with a row for each label of an image; an empty label is none.
    Raises UsageError for an image that is missing in it, and for another label.
    """
    classes, allowed = _with_indices(_classes(labels), len(labels))
    sets: dict[str, set[int]] = {}
    lines = [line for line in map(str.strip, _text(table).splitlines()) if line]
    for name, word in _rows(lines, table):
        if (name, word) == ("file", "label"):
            continue
        plain = _plain(word)
        if word and classes.get(plain, AMBIGUOUS) == AMBIGUOUS:
            raise UsageError(f"{table}: {word!r} is not a class; {allowed}")
        sets.setdefault(name, set()).update([classes[plain]] if word else [])
    entries = {image: _entry(image, sets) for image in images}
    if missing := [image for image, key in entries.items() if key is None]:
        raise UsageError(f"{table}: has no row for {counted(len(missing), 'image')}: {missing[0]}")
    return {image: frozenset(sets[key]) for image, key in entries.items() if key is not None}


def _with_indices(classes: Classes, count: int) -> tuple[Classes, str]:
    """Add the indices, unless a number is another class's id or name; return the advice, too."""
    number = next((word for word, i in classes.items() if word.isdecimal() and int(word) != i), "")
    if number:
        return (
            classes,
            f"give its id or name (no index, because {number!r} is a class's id or name)",
        )
    indices = {str(i): i for i in range(count)}
    return indices | classes, "give its id, name or index"


def _by_name(rows: Iterable[tuple[str, str]], table: Path) -> dict[str, str]:
    by_name: dict[str, str] = {}
    for name, word in rows:
        if _plain(by_name.setdefault(name, word)) != _plain(word):
            raise UsageError(
                f"{table}: {name} has the labels {by_name[name]!r} and {word!r}; remove one"
            )
    return by_name


def _rows(lines: Sequence[str], table: Path) -> Iterator[tuple[str, str]]:
    import csv  # few calls read a table

    commas = any("," in line for line in lines)
    # Without commas the last word is the label: Caffe's `ILSVRC2012_val_00000001.JPEG 65`.
    split = csv.reader(lines) if commas else (line.rsplit(maxsplit=1) for line in lines)
    try:
        for number, row in enumerate(split, 1):
            if len(row) != 2:
                raise UsageError(f"{table}:{number}: has {len(row)} columns, expected file,label")
            yield row[0].strip().replace("\\", "/"), row[1].strip()
    except csv.Error as error:
        raise UsageError(f"{table}: not a CSV file: {error}") from None


def _text(table: Path) -> str:
    try:
        return read_text(table)
    except OSError as error:
        raise UsageError(f"{table}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{table}: not a CSV file in UTF-8: {error}") from None


def _entry(image: Path, rows: Collection[str]) -> str | None:
    """Return the longest end of the image's path that is in the table."""
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


def _indices(words: dict[Path, str], classes: Classes, labels: tuple[Label, ...]) -> Truth:
    truth = {image: classes[word] for image, word in words.items() if word in classes}
    for image, index in truth.items():
        if index == AMBIGUOUS:
            word = words[image]
            ids = ", ".join(label.id for label in labels if _plain(label.name) == word)
            raise UsageError(f"{image}: {word!r} names the classes {ids}: give the id instead")
    return truth


def _plain(text: str) -> str:
    return text.strip().casefold().replace("_", " ").replace("-", " ")


def _complete(truth: Truth, images: Sequence[Path], evidence: str) -> Truth:
    missing = [image.name for image in images if image not in truth]
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise UsageError(
            f"{evidence}: a class for {counted(len(truth), 'image')}, but none for "
            f"{len(missing)}: {names}"
        )
    return truth
