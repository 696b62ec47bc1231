"""Write a message as the documented JSON object (docs/json.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kedge_runtime.output import json_text
from kedge_runtime.streams.events import Event
from kedge_runtime.watch.loop import Message


@dataclass(frozen=True)
class Origin:
    """Where messages come from: the artefacts that answer, and the source's name."""

    artefacts: Sequence[str]
    source: str


def record_of(message: Message, origin: Origin) -> dict[str, Any]:
    """Return a message as plain data: an event has the key `event`, an answer `label`."""
    head = {
        "schema": 1,
        "command": "watch",
        "artefacts": list(origin.artefacts),
        "source": origin.source,
    }
    if isinstance(message, Event):
        about = {"event": message.kind, "text": message.text, "figures": dict(message.figures)}
        return {**head, "time": message.time, **about}
    frame = message.frame
    place = {"time": frame.seconds, "frame": frame.index, "dropped": frame.dropped}
    return {**head, **place, **message.result.to_dict()}


def line_of(message: Message, origin: Origin) -> str:
    """Return a message as one line of JSON."""
    return json_text(record_of(message, origin), indent=None)
