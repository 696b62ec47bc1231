"""From frames to answers: motion first, then the model, then whether it stays."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kedge_runtime.answering import Answering
from kedge_runtime.contract import Colour
from kedge_runtime.errors import UsageError
from kedge_runtime.results import Result, Rule
from kedge_runtime.streams.debounce import Debounce, Votes
from kedge_runtime.streams.frames import Frame, ended, numbered
from kedge_runtime.streams.motion import Motion
from kedge_runtime.streams.unsure import LIMIT, UnsureFolder


@dataclass(frozen=True)
class Watch:
    """What is asked of each frame, and which answers come out.

    `top` and `rule`: as for one picture. `debounce`: only answers that stay, once each time.
    `motion`: only frames that differ from the last one classified by more than this, 0..255.
    `save_unsure`: a folder for unknown frames, `unsure_limit` of them.
    """

    top: int = 5
    rule: Rule = Rule()
    debounce: Votes | None = None
    motion: float | None = None
    save_unsure: Path | None = None
    unsure_limit: int = LIMIT


@dataclass(frozen=True)
class Answer:
    """A frame and what the model says of it."""

    frame: Frame
    result: Result


@dataclass
class Tally:
    """What has become of a stream's frames so far."""

    frames: int = 0
    classified: int = 0
    answers: int = 0
    dropped: int = 0
    saved: int = 0


def classify_stream(
    model: Answering,
    frames: Iterable[Frame | NDArray[Any]],
    watch: Watch = Watch(),
    *,
    colour: Colour = "rgb",
    tally: Tally | None = None,
) -> Iterator[Answer]:
    """Yield the answers to a stream, each as soon as its frame is there.

    `frames`: of open_video, latest(open_camera(...)), or uint8 arrays [h, w, 3] in the order of
    `colour`; a generator is closed with this one. With `debounce` a still frame counts as the last
    one classified. `tally` is kept up to date. Raises ImageError for frames that can't be read.
    """
    return _answers(Observer(model, watch, tally or Tally()), frames, colour)


def _answers(
    observer: "Observer", frames: Iterable[Frame | NDArray[Any]], colour: Colour
) -> Iterator[Answer]:
    with ended(frames):
        for frame in numbered(frames, colour):
            if (result := observer.see(frame)) is not None:
                yield Answer(frame, result)


class Observer:
    """Sees frame after frame; keeps the last result for those in which nothing moves."""

    def __init__(self, model: Answering, watch: Watch, tally: Tally) -> None:
        """Set the gates up. Raises UsageError for a folder of unsure frames that stays empty."""
        rule, folder = watch.rule, watch.save_unsure
        sure = not model.classes.multi_label and (rule.min_confidence, rule.max_entropy) == (0, 1)
        if folder and sure:
            raise UsageError("nothing is unsure without a least confidence or a largest entropy")
        self._model, self._watch, self._tally = model, watch, tally
        self._debounce = Debounce(watch.debounce) if watch.debounce else None
        self._motion = None if watch.motion is None else Motion(watch.motion)
        self._unsure = UnsureFolder(folder, watch.unsure_limit) if folder else None
        self._result: Result | None = None

    def see(self, frame: Frame) -> Result | None:
        """Return the result when it is to come out. Raises ImageError."""
        self._tally.frames += 1
        self._tally.dropped = frame.dropped
        moved = self._motion is None or self._motion(frame.pixels)
        result = self._ask(frame) if moved or self._result is None else self._result
        self._result = result
        if not (self._debounce(self._vote(result)) if self._debounce else moved):
            return None
        self._tally.answers += 1
        return result

    def _ask(self, frame: Frame) -> Result:
        result = self._model(frame.pixels, top=self._watch.top, rule=self._watch.rule)
        self._tally.classified += 1
        if result.unknown and self._unsure:
            self._tally.saved += self._unsure.save(frame)
        return result

    def _vote(self, result: Result) -> Hashable:
        """Indices, since two classes may share a name; those of several answers, in any order."""
        if result.unknown:
            return None
        if self._model.classes.multi_label:
            return frozenset(prediction.index for prediction in result.predictions)
        return result.best.index
