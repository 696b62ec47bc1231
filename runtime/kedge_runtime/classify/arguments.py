"""Check what programs pass to the Python API: a wrong type is one line, as a wrong value is."""

import os
from collections.abc import Iterable, Iterator
from numbers import Integral
from types import UnionType
from typing import Any

import numpy as np

from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.classify.results import Rule
from kedge_runtime.errors import UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.objects import BinaryFile, Encoded
from kedge_runtime.records import shown

PATH = str | os.PathLike  # type: ignore[type-arg]
ORDERS: tuple[Colour, ...] = ("rgb", "bgr")


@dataclass(frozen=True)
class Argument:
    """What an argument may be: its types, and their name for messages."""

    types: type | UnionType
    allowed: str


OPEN = {
    "path": Argument(PATH, "a path"),
    "threads": Argument(Integral | None, "a whole number"),
    "delegate": Argument(str | None, "a name or a path, as str"),
    "engine": Argument(str | None, "a name"),
    "contract": Argument(Contract | None, "a Contract, as read_contract returns it"),
    "key": Argument(PATH | None, "the path of a public key"),
    "min_serial": Argument(Integral, "a whole number"),
}


def check(arguments: dict[str, Argument], **values: Any) -> None:
    """Raise UsageError for a value whose type its argument does not allow."""
    for name, value in values.items():
        if not isinstance(value, arguments[name].types):
            raise UsageError(f"{name} is {shown(value)}, expected {arguments[name].allowed}")


@dataclass(frozen=True)
class CallOptions:
    """How to classify: the most classes to return, the rule, and the order of an array's channels.

    Raises UsageError for values that are not allowed.
    """

    top: int = 5
    rule: Rule = Rule()
    colour: Colour = "rgb"

    def __post_init__(self) -> None:
        """Refuse wrong values, also where no image follows."""
        if not isinstance(self.top, Integral) or self.top < 1:
            raise UsageError(f"top is {shown(self.top)}, allowed are 1 and more")
        if not isinstance(self.rule, Rule):
            raise UsageError(f"rule is {shown(self.rule)}, expected a Rule")
        check_colour(self.colour)


def check_colour(colour: object) -> None:
    """Raise UsageError for an order of channels that an array can't have."""
    if not isinstance(colour, str) or colour not in ORDERS:
        raise UsageError(f"colour is {shown(colour)}, allowed are {', '.join(ORDERS)}")


def check_iterable(images: object) -> None:
    """Raise UsageError for one image where several are expected."""
    single = (
        images.ndim < 4
        if isinstance(images, np.ndarray)
        else isinstance(images, str | os.PathLike | Encoded | BinaryFile)
    )
    if single or not isinstance(images, Iterable):
        raise UsageError(f"each takes several images, got one {type(images).__name__}: give a list")


def check_single(image: object) -> None:
    """Raise UsageError for an iterator: it may be endless, and a list of results is not."""
    if isinstance(image, Iterator) and not isinstance(image, BinaryFile):
        raise UsageError(f"got a {type(image).__name__}: give a list, or call each")
