"""Classify the frames of a camera or a video: the command `kedge watch`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from kedge_runtime.commands.arguments import split
from kedge_runtime.commands.opening import (
    ModelRequest,
    answer_options,
    model_request,
    opening_options,
)
from kedge_runtime.commands.stream import (
    INTERRUPTED,
    FrameSourceRequest,
    GateRequest,
    SinkRequest,
    stream_options,
    summing_up,
)
from kedge_runtime.commands.updating import StreamModel, UpdateRequest, update_options
from kedge_runtime.commands.watch_lines import JsonLines, TextLines, local_time, video_time
from kedge_runtime.errors import UsageError
from kedge_runtime.output import only_python_stderr
from kedge_runtime.streams.answers import FrameClassifier, StreamTally
from kedge_runtime.watch.loop import Sink, Watch
from kedge_runtime.watch.message import Origin


@dataclass(frozen=True)
class WatchOptions:
    """The options of `kedge watch`."""

    arguments: tuple[str, ...]
    top: int
    model: ModelRequest
    source: FrameSourceRequest
    gates: GateRequest
    sinks: SinkRequest
    updates: UpdateRequest
    as_json: bool


top_option = click.option(
    "--top",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of classes per answer.",
)


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="ARTEFACT...")
@top_option
@answer_options
@stream_options
@update_options
@opening_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def watch(**options: Any) -> int:
    """Classify the frames of a camera or a video.

    ARTEFACT ends in .tflite or .onnx. A camera that is lost is opened again, until Ctrl-C. Answers
    and events are printed, and go to each sink: --csv, --mqtt, --webhook.
    """
    return run(WatchOptions(model=model_request(options), **options))


def run(options: WatchOptions) -> int:
    """Watch until the stream ends; return the exit code."""
    artefacts, _ = split(options.arguments, streaming=True, zips=True)
    if not options.source.given:
        raise UsageError("no source given: name one with --camera or --video")
    opened = options.updates.open(artefacts, options.model, options.source, options.sinks)
    with only_python_stderr(), ending_by_signal():
        return watch_stream(opened, options)


def watch_stream(opened: StreamModel, options: WatchOptions) -> int:
    """Send a stream's messages to the sinks until it ends; return the exit code."""
    source, tally = options.source, StreamTally()
    gates = options.gates.options(options.top, options.model.rule)
    classifier = FrameClassifier(opened.model, gates, tally)
    items, origin = source.open(), Origin(opened.names, source.name)
    sinks = [_printer(options, origin), *options.sinks.open(origin, live=source.live)]
    with summing_up(tally):
        try:
            Watch(source.name, classifier, opened.observers, sinks).run(items)
        except KeyboardInterrupt:
            return 0 if source.live else INTERRUPTED
    return 0


def _printer(options: WatchOptions, origin: Origin) -> Sink:
    if options.as_json:
        return JsonLines(origin)
    return TextLines(options.top, local_time if options.source.live else video_time)


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Let SIGTERM, systemd's word for the end, do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
