"""Classify frames as they arrive: first the motion gate, then the model, then the debounce gate."""

import re
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Result, Rule
from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.files import write_whole
from kedge_runtime.image.opencv import cv2
from kedge_runtime.output import say
from kedge_runtime.streams.sources import Clock, Frame, ended, numbered

# Pixels of a side: small enough to blur a sensor's noise away, large enough for a hand.
SIDE = 32
# Pixels that the shorter side is thinned to, about, before it is averaged: 16 for each pixel of the
# thumbnail are enough, and averaging all of a large frame would cost more than the model.
THINNED = 128


class Motion:
    """Compares each frame with the last one that showed motion."""

    def __init__(self, threshold: float) -> None:
        """Take the mean grey difference that counts as motion, 0..255. Raises UsageError."""
        if not 0 <= threshold <= 255:
            raise UsageError(f"motion is {threshold}, allowed are 0 (any change) to 255")
        self._threshold = threshold
        self._last: NDArray[np.int16] | None = None

    def __call__(self, pixels: Pixels) -> bool:
        """Return whether RGB uint8 [h, w, 3] differ by more than the threshold, as the first do."""
        thumbnail = _thumbnail(pixels)
        if self._last is not None and _difference(self._last, thumbnail) <= self._threshold:
            return False
        self._last = thumbnail
        return True


def _thumbnail(pixels: Pixels) -> NDArray[np.int16]:
    step = max(1, min(pixels.shape[:2]) // THINNED)
    thinned = np.ascontiguousarray(pixels[::step, ::step])
    grey = cv2.cvtColor(thinned, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)


def _difference(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    return float(np.abs(one - other).mean())


@dataclass(frozen=True)
class Votes:
    """`needed` of the last `frames` must agree, 1 <= needed <= frames. Raises UsageError."""

    needed: int
    frames: int

    def __post_init__(self) -> None:
        """Refuse votes that no frames can give."""
        if not 1 <= self.needed <= self.frames:
            raise UsageError(f"{self.needed}/{self.frames}: not possible; 3/5 means 3 of 5 frames")

    @classmethod
    def read(cls, text: str) -> "Votes":
        """Return the votes of a text such as "3/5"."""
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if not match:
            raise UsageError(f"{text}: expected k/n, such as 3/5 for 3 of the last 5 frames")
        return cls(int(match[1]), int(match[2]))


class Debounce:
    """Holds the stable answer of a stream; called for each frame."""

    def __init__(self, votes: Votes) -> None:
        """Begin without a stable answer."""
        self._votes = votes
        self._last: deque[Hashable] = deque(maxlen=votes.frames)
        self._stable: tuple[Hashable, ...] = ()

    def __call__(self, answer: Hashable) -> bool:
        """Add a frame's answer; return whether it has just become the stable one."""
        self._last.append(answer)
        if self._stable == (answer,) or self._last.count(answer) < self._votes.needed:
            return False
        self._stable = (answer,)
        return True


QUALITY = 95  # of JPEG, 0..100
# About 200 MB of 640x480 pixels at this quality: an SD card doesn't fill over a night.
LIMIT = 1000


class UnsureFolder:
    """Saves frames as JPEG until the folder holds `limit` of them, earlier runs included."""

    def __init__(self, folder: str | Path, limit: int = LIMIT, clock: Clock = time.time) -> None:
        """Create the folder if it is missing. Raises UsageError when that fails."""
        self._folder, self._clock = Path(folder), clock
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._limit, self._room, self._failing = limit, 0, False
            self._count()
        except OSError as error:
            reason = reason_of(error)
            raise UsageError(
                f"{folder}: can't create this folder ({reason}); choose another path"
            ) from None

    def save(self, frame: Frame) -> bool:
        """Save a frame, named by the UTC time and its index; return whether it was saved.

        A full folder takes none. A full disk ends no stream: that is said once, until a frame can
        be saved again.
        """
        if self._room <= 0:
            self._count()  # someone may have emptied it
        if self._room <= 0:
            return False
        pixels = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR)
        _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        try:
            write_whole(self._free(frame.index), content.tobytes())
        except UsageError as error:
            if not self._failing:
                say(f"unsure frames are lost: {error}")
            self._failing = True
            return False
        self._failing = False
        self._room -= 1
        return True

    def _count(self) -> None:
        self._room = self._limit - sum(1 for _ in self._folder.glob("*.jpg"))

    def _free(self, index: int) -> Path:
        moment = datetime.fromtimestamp(self._clock(), timezone.utc)
        name = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond:06}Z-{index}"
        # A clock may stand still or go back: a Raspberry Pi has no battery for it.
        names = (f"{name}{f'-{again}' if again else ''}.jpg" for again in count())
        return next(path for path in map(self._folder.joinpath, names) if not path.exists())


@dataclass(frozen=True)
class StreamOptions:
    """Hold the options of a stream: how frames are classified, and which answers are reported.

    `top` and `rule`: as for one image. `debounce`: report stable answers only, each change
    once. `motion`: classify only frames that differ by more than this from the last one
    classified, 0..255. `save_unsure`: a folder for at most `unsure_limit` unknown frames.
    """

    top: int = 5
    rule: Rule = Rule()
    debounce: Votes | None = None
    motion: float | None = None
    save_unsure: Path | None = None
    unsure_limit: int = LIMIT


@dataclass(frozen=True)
class Answer:
    """A frame and its result."""

    frame: Frame
    result: Result


@dataclass
class StreamTally:
    """Counts what happened to the frames of a stream so far.

    `losses`, `lost_seconds`: how often a live source was lost, and for how long in all.
    """

    frames: int = 0
    classified: int = 0
    answers: int = 0
    dropped: int = 0
    saved: int = 0
    losses: int = 0
    lost_seconds: float = 0.0


@dataclass(frozen=True)
class FrameOutcome:
    """What the gates made of a frame.

    `result`: its own, or without motion that of the last classified frame. `classified`: whether
    the model saw it. `answered`: whether its result passed all gates.
    """

    result: Result
    classified: bool
    answered: bool


def classify_stream(
    model: Predictor,
    frames: Iterable[Frame | NDArray[Any]],
    options: StreamOptions = StreamOptions(),
    *,
    colour: Colour = "rgb",
    tally: StreamTally | None = None,
) -> Iterator[Answer]:
    """Yield the answers to a stream, each as soon as its frame arrives.

    `frames`: from open_video, latest(open_camera(...)), or uint8 arrays [h, w, 3] in the order of
    `colour`; a generator is closed with this one. With `debounce` a frame without motion counts as
    the last one classified. `tally` is kept up to date. Raises ImageError for
    a frame that can't be read.
    """
    return _answers(FrameClassifier(model, options, tally or StreamTally()), frames, colour)


def _answers(
    classifier: "FrameClassifier", frames: Iterable[Frame | NDArray[Any]], colour: Colour
) -> Iterator[Answer]:
    with ended(frames):
        for frame in numbered(frames, colour):
            outcome = classifier.classify(frame)
            if outcome.answered:
                yield Answer(frame, outcome.result)


class FrameClassifier:
    """Classifies frame after frame; repeats the last result for frames without motion."""

    def __init__(self, model: Predictor, options: StreamOptions, tally: StreamTally) -> None:
        """Create the gates. Raises UsageError when no frame can be unsure."""
        self.tally = tally
        rule, folder = options.rule, options.save_unsure
        sure = not model.classes.multi_label and (rule.min_confidence, rule.max_entropy) == (0, 1)
        if folder and sure:
            raise UsageError("--save-unsure needs --min-confidence or --max-entropy")
        self._model, self._options = model, options
        self._debounce = Debounce(options.debounce) if options.debounce else None
        self._motion = None if options.motion is None else Motion(options.motion)
        self._unsure = UnsureFolder(folder, options.unsure_limit) if folder else None
        self._result: Result | None = None

    def classify(self, frame: Frame) -> FrameOutcome:
        """Return the result, and whether it passes the gates. Raises ImageError."""
        self.tally.frames += 1
        self.tally.dropped = frame.dropped
        moved = self._motion is None or self._motion(frame.pixels)
        kept = None if moved else self._result
        result = self._result = kept or self._predict(frame)
        answered = self._debounce(self._vote(result)) if self._debounce else moved
        self.tally.answers += answered
        return FrameOutcome(result, kept is None, answered)

    def _predict(self, frame: Frame) -> Result:
        result = self._model(frame.pixels, top=self._options.top, rule=self._options.rule)
        self.tally.classified += 1
        if result.unknown and self._unsure:
            self.tally.saved += self._unsure.save(frame)
        return result

    def _vote(self, result: Result) -> Hashable:
        """Return what the frames vote on: two classes may share an id, and an update an index."""
        if result.unknown:
            return None
        if self._model.classes.multi_label:
            return frozenset((each.index, each.id) for each in result.predictions)
        return result.best.index, result.best.id
