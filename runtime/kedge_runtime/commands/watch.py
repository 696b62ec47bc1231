"""Classify the frames of a camera or a video: the command `kedge watch`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from kedge_runtime.commands.opening import opening_options
from kedge_runtime.commands.stream import INTERRUPTED, summing_up
from kedge_runtime.commands.streaming import StreamRequest, stream_request_options
from kedge_runtime.commands.updating import StreamModel
from kedge_runtime.commands.watch_lines import JsonLines, TextLines, local_time, video_time
from kedge_runtime.errors import UsageError
from kedge_runtime.output import only_python_stderr
from kedge_runtime.watch.loop import Sink, Watch
from kedge_runtime.watch.message import Origin


@dataclass(frozen=True)
class WatchOptions:
    """The options of `kedge watch`."""

    stream: StreamRequest
    as_json: bool


@click.command()
@stream_request_options
@opening_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def watch(**options: Any) -> int:
    """Classify the frames of a camera or a video.

    ARTEFACT ends in .tflite or .onnx. A camera that is lost is opened again, until Ctrl-C. Answers
    and events are printed, and go to each sink: --csv, --mqtt, --webhook.
    """
    return run(WatchOptions(StreamRequest.take(options), **options))


def run(options: WatchOptions) -> int:
    """Watch until the stream ends; return the exit code."""
    artefacts = options.stream.artefacts()
    if not options.stream.source.given:
        raise UsageError("no source given: name one with --camera or --video")
    opened = options.stream.open(artefacts)
    with only_python_stderr(), ending_by_signal():
        return watch_stream(opened, options)


def watch_stream(opened: StreamModel, options: WatchOptions) -> int:
    """Send a stream's messages to the sinks until it ends; return the exit code."""
    stream = options.stream
    source, classifier = stream.source, stream.classifier(opened)
    items, origin = source.open(), stream.origin(opened)
    sinks = [_printer(options, origin), *stream.open_sinks(origin)]
    with summing_up(classifier.tally, opened.model):
        try:
            Watch(source.name, classifier, opened.observers, sinks).run(items)
        except KeyboardInterrupt:
            return 0 if source.live else INTERRUPTED
    return 0


def _printer(options: WatchOptions, origin: Origin) -> Sink:
    if options.as_json:
        return JsonLines(origin)
    stream = options.stream
    return TextLines(stream.top, local_time if stream.source.live else video_time)


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Let SIGTERM, systemd's word for the end, do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
