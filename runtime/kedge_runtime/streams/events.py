"""Events of a stream: what happens beside its answers, and what may report it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kedge_runtime.arrays import Pixels
from kedge_runtime.classify.results import Result


@dataclass(frozen=True)
class Event:
    """Something that happened in a stream beside its answers.

    `time`: as of the frames, in a live source seconds since 1970. `kind`: a short key, such as
    `source-lost`; a program tells events apart by it. `text`: one sentence for people. `figures`:
    the numbers in it by name.
    """

    time: float
    kind: str
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


class Observer(Protocol):
    """Sees every frame that the model classified, and reports events.

    It is called in the stream's own thread: what it takes, the next frame waits. Where it has a
    method `close`, that is called at the stream's end.
    """

    def observe(self, pixels: Pixels, result: Result) -> Iterable[Event]:
        """Return the events of one frame: pixels are RGB uint8 [h, w, 3], and not to be changed."""
        ...
