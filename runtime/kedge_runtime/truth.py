"""The true classes of pictures, read from what people have: names, folders, or a file.

Schemes, tried in this order: a file (a table of `file,label`, or the lists of ILSVRC's validation
pictures); file names that begin with a class's id, as in `n01440764_tench.JPEG`; folders called by
a class's id or name, as in `tench/1.jpg`.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from kedge_runtime import ilsvrc
from kedge_runtime.contract import Label
from kedge_runtime.errors import UsageError
from kedge_runtime.files import read_text

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
    raise UsageError(f"--labels {how}: {what} tell the class of no picture, as {images[0]}")


def _by_file(images: Sequence[Path], labels: tuple[Label, ...], place: Path) -> Truth:
    path = ilsvrc.ground_truth(place)
    lines = [line for line in map(str.strip, _text(path).splitlines()) if line]
    if lines and ilsvrc.is_list(lines):
        return _by_list(images, labels, lines, path)
    return _by_table(images, labels, lines, path)


def _by_list(
    images: Sequence[Path], labels: tuple[Label, ...], lines: Sequence[str], path: Path
) -> Truth:
    ids = {label.id: i for i, label in enumerate(labels)}
    synsets = ilsvrc.synsets(lines, path, labels)
    numbers = {image: ilsvrc.number_of(image) for image in images}
    return {
        image: ids[synsets[number - 1]]
        for image, number in numbers.items()
        if number and number <= len(synsets) and synsets[number - 1] in ids
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
