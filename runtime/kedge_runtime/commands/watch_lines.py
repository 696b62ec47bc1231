"""Print messages on stdout: as text for people, or as lines of JSON."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kedge_runtime.commands import answers
from kedge_runtime.output import echo, echo_page, note
from kedge_runtime.streams.events import Event
from kedge_runtime.watch.loop import Message
from kedge_runtime.watch.message import Origin, line_of


def local_time(seconds: float) -> str:
    """Return the time of day of a live source's frame."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def video_time(seconds: float) -> str:
    """Return the time of a video's frame."""
    return f"{seconds:.2f} s"


@dataclass(frozen=True)
class TextLines:
    """Prints each message for people. `top`: classes of an answer; `moment` writes its time."""

    top: int
    moment: Callable[[float], str]

    def put(self, message: Message) -> None:
        """Print a message. Raises UnreadError when nobody reads stdout."""
        if isinstance(message, Event):
            echo(f"{self.moment(message.time)}: {message.text}")
        else:
            moment = self.moment(message.frame.seconds)
            echo_page(answers.text(moment, message.result, self.top))

    def close(self) -> None:
        """Do nothing: each line was written at once."""


@dataclass(frozen=True)
class JsonLines:
    """Prints each message as the documented object, one per line."""

    origin: Origin

    def put(self, message: Message) -> None:
        """Print a message. Raises UnreadError when nobody reads stdout."""
        echo_page(line_of(message, self.origin))

    def close(self) -> None:
        """Do nothing: each line was written at once."""


class EventLog:
    """Prints events on stderr, where a server has no stdout for answers."""

    def put(self, message: Message) -> None:
        """Print an event."""
        if isinstance(message, Event):
            note(message.text)

    def close(self) -> None:
        """Do nothing: each line was written at once."""
