"""What static quantisation of a format offers, and what its graph is made of."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare import Grids
from kedge_convert.quantise.static.ranges import Ranges
from kedge_convert.scheme import PLAIN, Scheme
from kedge_convert.source import Source

See = Callable[[str, NDArray[np.float32]], None]


@dataclass(frozen=True)
class Operator:
    """One operation of a float file, with the names of the activations that it takes and gives."""

    name: str
    tensors: frozenset[str]


class Static(Protocol):
    """The verbs of a format's module."""

    def floats(self, source: Source) -> bytes:
        """Return the float file that is quantised. Raises ConversionError."""

    def observe(self, content: bytes, pictures: Iterable[NDArray[np.float32]], see: See) -> None:
        """Call `see` with name and value of every activation, picture by picture, [1, h, w, 3]."""

    def quantise(
        self,
        content: bytes,
        ranges: Ranges,
        kept: frozenset[str] = frozenset(),
        scheme: Scheme = PLAIN,
    ) -> bytes:
        """Return the int8 file; operators named in `kept` stay float. Raises ConversionError."""

    def grids(self, scheme: Scheme) -> Grids:
        """Return where prepared weights must lie for `quantise` to find them again."""

    def operators(self, content: bytes) -> list[Operator]:
        """Return a float file's operators in execution order."""
