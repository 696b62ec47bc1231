"""Label files whose lines are numbered, as Coral's and Teachable Machine's are."""

import re

from kedge_runtime.contract import Label

_NUMBERED = re.compile(r"(\d+)(?:: *| +)(\S.*)")


def without_numbers(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Return the labels of `0 cat`, `1 dog`, ... as `cat`, `dog`, others as they are.

    Numbers that don't run from 0, or that tell equal names apart, are part of the names.
    """
    found = [_NUMBERED.fullmatch(label.name) for label in labels if label.id == label.name]
    pairs = [(int(match[1]), match[2]) for match in found if match]
    names = [name for _, name in pairs]
    counted = [number for number, _ in pairs] == list(range(len(labels)))
    if not counted or len(set(names)) < len(names):
        return labels
    return tuple(Label(id=name, name=name) for name in names)
