"""Read label files: the names of the classes, one per line, kedge's own and the user's.

One format for both: `id<TAB>name`, or only `name`, in the order of the output.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kedge_runtime.artefact.contract import Label
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.files import read_text

# Stripped around a name: Windows ends lines with \r. Other control characters are refused.
BLANKS = " \t\r"
# Coral's and Teachable Machine's files number their classes.
_NUMBERED = re.compile(r"(\d{1,9})(?:: *| +)(\S.*)")


def read_labels(path: Path, *, repeated: bool = False) -> tuple[Label, ...]:
    """Read the user's file: UTF-8, one class per line, `id<TAB>name` or `name`.

    Without an id the name is the id. `repeated`: see `parse`. Raises UsageError for a file that is
    missing, empty, JSON or not UTF-8, for an empty line before the end (it would shift all classes
    after it), and for a repeated id.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise UsageError(f"can't read the label file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 at byte {error.start}: save it as UTF-8") from None
    if _is_json(text):
        raise UsageError(f"{path} is JSON: write one class a line, in the order of the output")
    return parse(text, str(path), repeated=repeated)


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("[", "{")):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:  # only brackets nest so deep
        return True
    return True


def parse(text: str, where: str, *, repeated: bool = False) -> tuple[Label, ...]:
    """Turn the text of a label file into labels; `where` names the file in every message.

    `repeated`: whether an id may come twice, as in the files that models bring (ImageNet has two
    cranes); the second one is then `crane (2)`. Raises UsageError.
    """
    if not text.strip():
        raise UsageError(f"{where} is empty: write one class a line, in the order of the output")
    lines = text.rstrip("\n").split("\n")
    labels = tuple(_label(line, f"{where}:{number}") for number, line in enumerate(lines, 1))
    if repeated:
        return tuple(_distinct(labels))
    _refuse_duplicates(labels, where)
    return labels


def without_numbers(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Return the labels `0 cat`, `1 dog`, ... as `cat`, `dog`; leave other labels as they are.

    Numbers that don't run from 0, or that tell equal names apart, are part of the names.
    """
    matches = [_NUMBERED.fullmatch(label.name) for label in labels if label.id == label.name]
    pairs = [(int(match[1]), match[2]) for match in matches if match]
    names = [name for _, name in pairs]
    in_order = [number for number, _ in pairs] == list(range(len(labels)))
    if not in_order or len(set(names)) < len(names):
        return labels
    return tuple(Label(id=name, name=name) for name in names)


def _label(line: str, where: str) -> Label:
    key, tab, name = line.partition("\t")
    if not key.strip() or (tab and not name.strip()):
        raise UsageError(f"{where}: got {line!r}, expected `name` or `id<TAB>name`")
    try:
        return Label(id=key.strip(BLANKS), name=(name or key).strip(BLANKS))
    except ContractError as error:
        raise UsageError(f"{where}: {error}") from None


def _distinct(labels: tuple[Label, ...]) -> Iterator[Label]:
    seen = Counter[str]()
    for label in labels:
        seen[label.id] += 1
        number = seen[label.id]
        yield label if number == 1 else replace(label, id=f"{label.id} ({number})")


def _refuse_duplicates(labels: tuple[Label, ...], where: str) -> None:
    lines: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        first = lines.setdefault(label.id, number)
        if first != number:
            raise UsageError(
                f"{where}: {label.id!r} stands in lines {first} and {number}: "
                "tell the two apart with `id<TAB>name`"
            )
