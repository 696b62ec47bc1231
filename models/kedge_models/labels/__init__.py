"""The names of the classes: the lists that kedge ships, and the user's own.

One format for both, a line per class in the order of the output: `id<TAB>name`, or only `name`.
`imagenet.tsv` holds the synsets and WordNet's first lemma, spelled as Keras's `decode_predictions`
spells them. Two names stand there twice (`crane` the bird and the machine, `maillot` with one and
two pieces), which is why a label has an id besides its name.
"""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from kedge_runtime.contract import Label
from kedge_runtime.errors import UsageError
from kedge_runtime.label_lines import without_numbers

__all__ = ["imagenet", "read_labels", "shipped", "without_numbers"]


def imagenet() -> tuple[Label, ...]:
    """Return the 1000 classes of ILSVRC 2012 in the order of their synsets."""
    return shipped("imagenet")


@cache
def shipped(name: str) -> tuple[Label, ...]:
    """Read one of kedge's own lists. Raises UsageError naming the lists that exist."""
    resource = files(__package__).joinpath(f"{name}.tsv")
    if not resource.is_file():
        raise UsageError(f"no label list {name!r}; kedge ships {', '.join(_lists())}")
    return parse(resource.read_text(encoding="utf-8"), f"{name}.tsv")


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read the user's file: UTF-8, one class a line, `id<TAB>name` or `name`.

    Without an id the name is the id. Raises UsageError for a file that is missing, empty, JSON or
    not UTF-8, for an empty line before the end (it would shift every class after it), and for an
    id that comes twice.
    """
    try:
        # -sig: Windows editors put a byte order mark before the first name.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"can't read the label file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 at byte {error.start}: save it as UTF-8") from None
    if _is_json(text):
        raise UsageError(f"{path} is JSON: write one class a line, in the order of the output")
    return parse(text, str(path))


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("[", "{")):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def parse(text: str, where: str) -> tuple[Label, ...]:
    """Turn the text of a label file into labels; `where` names the file in every message."""
    if not text.strip():
        raise UsageError(f"{where} is empty: write one class a line, in the order of the output")
    lines = text.rstrip("\n").split("\n")
    labels = tuple(_label(line, f"{where}:{number}") for number, line in enumerate(lines, 1))
    _refuse_duplicates(labels, where)
    return labels


def _label(line: str, where: str) -> Label:
    key, tab, name = line.partition("\t")
    if not key.strip() or (tab and not name.strip()):
        raise UsageError(f"{where}: got {line!r}, expected `name` or `id<TAB>name`")
    return Label(id=key.strip(), name=(name or key).strip())


def _refuse_duplicates(labels: tuple[Label, ...], where: str) -> None:
    lines: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        first = lines.setdefault(label.id, number)
        if first != number:
            raise UsageError(
                f"{where}: {label.id!r} stands in lines {first} and {number}: "
                "tell the two apart with `id<TAB>name`"
            )


def _lists() -> list[str]:
    names = (item.name for item in files(__package__).iterdir())
    return sorted(name.removesuffix(".tsv") for name in names if name.endswith(".tsv"))
