"""Define the options of a stream, which `kedge watch` and `kedge serve` share, and open it."""

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Rule
from kedge_runtime.commands.options import group, record
from kedge_runtime.commands.paths import FOLDER, PLACE
from kedge_runtime.errors import UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.output import UnreadError, note
from kedge_runtime.streams.answers import LIMIT, StreamOptions, StreamTally, Votes
from kedge_runtime.streams.events import Event
from kedge_runtime.streams.live import open_live
from kedge_runtime.streams.sources import Frame, camera_name, open_video
from kedge_runtime.watch.csv_file import CsvFile
from kedge_runtime.watch.loop import Sink
from kedge_runtime.watch.message import Origin
from kedge_runtime.watch.outbox import LIMIT as QUEUED
from kedge_runtime.watch.outbox import Outbox

if TYPE_CHECKING:
    from kedge_runtime.watch.mqtt import MqttSink
    from kedge_runtime.watch.webhook import WebhookSink

INTERRUPTED = 130  # 128 + SIGINT, as in the shell


@dataclass(frozen=True)
class FrameSourceRequest:
    """The source of a command line; None where an option is missing. Raises UsageError."""

    camera: str | None
    video: Path | None
    every: int | None

    def __post_init__(self) -> None:
        """Refuse two sources, and --every without a video."""
        if self.camera is not None and self.video is not None:
            raise UsageError("--camera: one stream at a time; omit it or --video")
        if self.every and self.video is None:
            raise UsageError("--every: is for videos; a camera always gives its newest frame")

    @property
    def given(self) -> bool:
        """Whether there is a source."""
        return self.camera is not None or self.video is not None

    @property
    def live(self) -> bool:
        """Whether it is a camera, which only Ctrl-C ends."""
        return self.video is None

    @property
    def name(self) -> str:
        """The source's name for messages, without a password."""
        if not self.given:
            return "no source"
        return str(self.video) if self.video is not None else camera_name(self.camera or "")

    def open(self) -> Iterable[Frame | Event]:
        """Open the source. Raises ImageError, UsageError."""
        if self.video is not None:
            return open_video(self.video, self.every or 1)
        return open_live(self.camera or "")


# The source of a stream, as `source`: FrameSourceRequest.
source_options = record(
    "source",
    FrameSourceRequest,
    click.option(
        "--camera",
        metavar="NAME",
        help="Read a camera: 0, /dev/video0, rtsp://... or picamera2.",
    ),
    click.option("--video", type=PLACE, help="Read a video file."),
    click.option(
        "--every", type=click.IntRange(min=1), metavar="N", help="Classify one of N video frames."
    ),
)


@dataclass(frozen=True)
class GateRequest:
    """The gates of a command line; None where an option is missing."""

    debounce: str | None
    motion: float | None
    save_unsure: Path | None
    unsure_limit: int | None

    def options(self, top: int, rule: Rule) -> StreamOptions:
        """Return the options of the classification. Raises UsageError."""
        return StreamOptions(
            top=top,
            rule=rule,
            debounce=Votes.read(self.debounce) if self.debounce else None,
            motion=self.motion,
            save_unsure=self.save_unsure,
            unsure_limit=self.unsure_limit or LIMIT,
        )


# The gates of a stream, as `gates`: GateRequest.
gate_options = record(
    "gates",
    GateRequest,
    click.option("--debounce", metavar="K/N", help="Report answers on which K of N frames agree."),
    click.option(
        "--motion",
        type=click.FloatRange(0, 255),
        metavar="X",
        help="Classify frames whose mean grey difference exceeds X, 0..255.",
    ),
    click.option("--save-unsure", type=FOLDER, metavar="DIR", help="Save unknown frames as JPEG."),
    click.option(
        "--unsure-limit",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Save at most N frames in DIR [default: {LIMIT}].",
    ),
)


@dataclass(frozen=True)
class SinkRequest:
    """The sinks of a command line beside stdout; None where an option is missing."""

    csv: str | None
    mqtt: str | None
    webhook: str | None
    name: str | None
    state: Path | None
    queue: int

    @property
    def folder(self) -> Path:
        """The folder for what outlives the process."""
        return self.state or state_folder()

    def open(self, origin: Origin, *, live: bool) -> Sequence[Sink]:
        """Open the sinks. Raises UsageError."""
        sinks: list[Sink] = []
        if self.csv is not None:
            sinks.append(CsvFile(self.csv, live=live))
        if self.mqtt is not None:
            sinks.append(self._mqtt(self.mqtt, origin))
        if self.webhook is not None:
            sinks.append(self._webhook(self.webhook, origin))
        return sinks

    def _mqtt(self, address: str, origin: Origin) -> "MqttSink":
        from kedge_runtime.watch.mqtt import Broker, MqttSink

        broker = Broker.read(address, self.name or socket.gethostname())
        return MqttSink(broker, origin, self._outbox("mqtt"))

    def _webhook(self, address: str, origin: Origin) -> "WebhookSink":
        from kedge_runtime.watch.webhook import WebhookSink, check_address

        return WebhookSink(check_address(address), origin, self._outbox("webhook"))

    def _outbox(self, kind: str) -> Outbox:
        return Outbox(self.folder / f"{kind}.queue", self.queue)


def state_folder() -> Path:
    """Return the folder for what outlives the process: systemd's, or the user's."""
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.partition(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "kedge"


# Where messages go, as `sinks`: SinkRequest.
sink_options = record(
    "sinks",
    SinkRequest,
    click.option("--csv", metavar="CSV", help="Append rows to a file; %Y-%m-%d is the date."),
    click.option("--mqtt", metavar="URL", help="Publish to a broker: mqtt://[USER@]HOST[:PORT]."),
    click.option("--webhook", metavar="URL", help="Post each message as JSON to http(s)://..."),
    click.option("--name", metavar="NAME", help="Name for MQTT [default: the host's name]."),
    click.option(
        "--state",
        type=FOLDER,
        metavar="DIR",
        help="Folder of queues and of the field's tests [default: ~/.local/state/kedge].",
    ),
    click.option(
        "--queue",
        type=click.IntRange(min=1),
        default=QUEUED,
        show_default=True,
        metavar="N",
        help="Keep at most N messages for a network that is away.",
    ),
)

# All of them: `source`, `gates`, `sinks`.
stream_options = group(source_options, gate_options, sink_options)


@contextmanager
def summing_up(tally: StreamTally | None, model: Predictor) -> Iterator[None]:
    """Print what a stream and its model did when the block ends, unless stdout is closed.

    It goes to stderr. `tally`: None without a stream.
    """
    began, read = time.monotonic(), True
    try:
        yield
    except UnreadError:
        read = False
        raise
    finally:
        if read:
            if tally is not None:
                note(summary(tally, time.monotonic() - began))
            for line in model.summary():
                note(line)


def summary(tally: StreamTally, seconds: float) -> str:
    """Return what happened to the frames of a stream, in one line."""
    lost = f", lost {tally.losses} times" if tally.losses else ""
    return (
        f"{tally.frames} frames, {tally.classified} classified, {tally.answers} answers, "
        f"{tally.dropped} dropped, {tally.saved} unsure saved{lost}, "
        f"{tally.frames / max(seconds, 1e-9):.1f} frames per second"
    )
