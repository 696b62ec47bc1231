"""What an export gives, and what the formats share to make it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from kedge_convert.photos import Tick
from kedge_convert.scheme import Scheme
from kedge_convert.source import Source


@dataclass(frozen=True)
class Exported:
    """An unsealed model file. `notes`: a line each for what isn't as the target's name says."""

    content: bytes
    notes: tuple[str, ...] = ()


Recipe = Callable[[Source, Sequence[Path], Tick, Scheme], Exported]


def once(make: Callable[[Source], bytes]) -> Callable[[Source], bytes]:
    """Remember what `make` gave for a source's model, for as long as that model lives."""
    made: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()

    @wraps(make)
    def remembered(source: Source) -> bytes:
        if source.model not in made:
            made[source.model] = make(source)
        return made[source.model]

    return remembered
