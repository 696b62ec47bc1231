"""Define what `kedge watch` and `kedge serve` share: a stream with its model, gates and sinks."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from kedge_runtime.commands.arguments import split
from kedge_runtime.commands.opening import ModelRequest, answer_options, model_request
from kedge_runtime.commands.options import group
from kedge_runtime.commands.stream import (
    FrameSourceRequest,
    GateRequest,
    SinkRequest,
    stream_options,
)
from kedge_runtime.commands.updating import StreamModel, UpdateRequest, update_options
from kedge_runtime.streams.answers import FrameClassifier, StreamTally
from kedge_runtime.watch.loop import Sink
from kedge_runtime.watch.message import Origin


@dataclass(frozen=True)
class StreamRequest:
    """What a command line says of a stream. `top`: the most classes of an answer."""

    arguments: tuple[str, ...]
    top: int
    model: ModelRequest
    source: FrameSourceRequest
    gates: GateRequest
    sinks: SinkRequest
    updates: UpdateRequest

    @classmethod
    def take(cls, options: dict[str, Any]) -> "StreamRequest":
        """Take the fields of a request out of a command's options, and return it."""
        model = model_request(options)
        names = [field.name for field in fields(cls) if field.name != "model"]
        return cls(model=model, **{name: options.pop(name) for name in names})

    def artefacts(self) -> Sequence[Path]:
        """Return the artefacts of the command line. Raises UsageError for anything else."""
        return split(self.arguments, streaming=True, zips=True)[0]

    def open(self, artefacts: Sequence[Path]) -> StreamModel:
        """Open the model, and what observes its frames. Raises what opening raises."""
        return self.updates.open(artefacts, self.model, self.source, self.sinks)

    def classifier(self, opened: StreamModel) -> FrameClassifier:
        """Return the classifier of the frames, behind the gates. Raises UsageError."""
        gates = self.gates.options(self.top, self.model.rule)
        return FrameClassifier(opened.model, gates, StreamTally())

    def origin(self, opened: StreamModel) -> Origin:
        """Return what the messages come from."""
        return Origin(opened.names, self.source.name)

    def open_sinks(self, origin: Origin) -> Sequence[Sink]:
        """Open the sinks beside stdout. Raises UsageError."""
        return self.sinks.open(origin, live=self.source.live)


# The options of a StreamRequest, but for those behind a command's own.
stream_request_options = group(
    click.argument("arguments", nargs=-1, required=True, metavar="ARTEFACT..."),
    click.option(
        "--top",
        default=5,
        show_default=True,
        type=click.IntRange(min=1),
        help="Number of classes per answer.",
    ),
    answer_options,
    stream_options,
    update_options,
)
