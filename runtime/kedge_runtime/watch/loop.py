"""Run a stream: frames to the model, results to the observers, answers and events to the sinks."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from kedge_runtime.streams.answers import Answer, FrameClassifier
from kedge_runtime.streams.events import Event, Observer
from kedge_runtime.streams.live import BACK, LOST, resized
from kedge_runtime.streams.sources import Frame, ended

Message = Answer | Event


class Sink(Protocol):
    """Takes the messages of a stream, in their order.

    `put` returns fast: what goes over a network waits in an outbox.
    """

    def put(self, message: Message) -> None:
        """Take an answer or an event."""
        ...

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        ...


@dataclass
class Watch:
    """A stream's classifier, its observers and its sinks. `name`: the source's, for messages."""

    name: str
    classifier: FrameClassifier
    observers: Sequence[Observer] = ()
    sinks: Sequence[Sink] = ()

    def run(self, items: Iterable[Frame | Event]) -> None:
        """Run until the items end; then close source, observers and sinks.

        Raises ImageError for a frame that can't be read, and what observers and sinks raise.
        """
        with ExitStack() as stack:
            for each in (*self.sinks, *self.observers):
                stack.enter_context(ended(each))
            stack.enter_context(ended(items))
            for message in self.messages(items):
                for sink in self.sinks:
                    sink.put(message)

    def messages(self, items: Iterable[Frame | Event]) -> Iterator[Message]:
        """Yield the answers and events of a stream as they arise."""
        size: tuple[int, int] | None = None
        for item in items:
            if isinstance(item, Event):
                self._count(item)
                yield item
                continue
            if size and (event := resized(item, size, self.name)):
                yield event
            size = item.pixels.shape[0], item.pixels.shape[1]
            yield from self._seen(item)

    def _seen(self, frame: Frame) -> Iterator[Message]:
        outcome = self.classifier.classify(frame)
        if outcome.answered:
            yield Answer(frame, outcome.result)
        if outcome.classified:
            for observer in self.observers:
                yield from observer.observe(frame.pixels, outcome.result)

    def _count(self, event: Event) -> None:
        tally = self.classifier.tally
        tally.losses += event.kind == LOST
        if event.kind == BACK:
            tally.lost_seconds += event.figures["seconds"]
