"""Run a new model beside the old one, on frames that the old one has answered."""

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from kedge_runtime.arrays import Pixels
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import Result
from kedge_runtime.errors import EngineError, ImageError
from kedge_runtime.output import percent
from kedge_runtime.updates.verifying import RefusedUpdateError

Pair = tuple[Pixels, Result]
# Seconds between two frames of a shadow run, at least: 200 frames then show more than one moment.
GAP = 0.5


@dataclass(frozen=True)
class ShadowLimits:
    """How a new model is tried before it answers.

    `frames`: of the shadow run, and as many of the trial after it. `agreement`: the least share of
    them with the old model's best class, or its set of labels.
    """

    frames: int = 200
    agreement: float = 0.8


@dataclass(frozen=True)
class ShadowTally:
    """The frames of a shadow run, and those on which both models agree."""

    frames: int = 0
    agreed: int = 0

    @property
    def agreement(self) -> float:
        """The share of equal answers."""
        return self.agreed / max(self.frames, 1)

    def adding(self, agrees: bool) -> "ShadowTally":
        """Return the tally with one more frame."""
        return ShadowTally(self.frames + 1, self.agreed + agrees)


class ShadowFrames:
    """Passes frames from the stream to the shadow run: one waits at most, and none is waited for.

    So the stream never takes longer, however slow the new model is.
    """

    def __init__(self, stop: threading.Event) -> None:
        """Begin without a reader; `stop` ends `taken`."""
        self._waiting = queue.Queue[Pair](1)
        self._stop = stop
        self._open, self._next = False, 0.0

    def offer(self, pixels: Pixels, result: Result) -> None:
        """Offer a frame with the old model's result; it is left out while another one waits."""
        now = time.monotonic()
        if self._open and now >= self._next:
            with suppress(queue.Full):
                self._waiting.put_nowait((pixels, result))
                self._next = now + GAP

    def taken(self) -> Iterator[Pair]:
        """Yield frames until the stop; begin with one that is offered from now on."""
        with suppress(queue.Empty):
            self._waiting.get_nowait()
        self._open = True
        try:
            while not self._stop.is_set():
                with suppress(queue.Empty):
                    yield self._waiting.get(timeout=0.2)
        finally:
            self._open = False


def run_shadow(model: Classifier, frames: ShadowFrames, limits: ShadowLimits) -> ShadowTally | None:
    """Compare a model with the old one's results; return the tally, None after a stop.

    Raises RefusedUpdateError as soon as the agreement can't be reached any more, and for a model
    that fails.
    """
    tally, allowed = ShadowTally(), limits.frames * (1 - limits.agreement)
    asked = _asking(model)
    for pixels, result in frames.taken():
        tally = tally.adding(_answer(asked(pixels), model) == _answer(result, model))
        if tally.frames - tally.agreed > allowed + 1e-9:
            raise RefusedUpdateError(
                f"it agrees with the old model on {tally.agreed} of {tally.frames} frames; at "
                f"least {percent(limits.agreement)} of {limits.frames} are required"
            )
        if tally.frames >= limits.frames:
            return tally
    return None


def _asking(model: Classifier) -> Callable[[Pixels], Result]:
    def ask(pixels: Pixels) -> Result:
        try:
            return model(pixels)
        except (EngineError, ImageError) as error:
            raise RefusedUpdateError(f"it failed in the shadow run: {error}") from None

    return ask


def _answer(result: Result, model: Classifier) -> Hashable:
    """Return what both models must agree on: ids, as a new model may have more classes."""
    if model.classes.multi_label:
        return frozenset(prediction.id for prediction in result.predictions)
    return result.best.id
