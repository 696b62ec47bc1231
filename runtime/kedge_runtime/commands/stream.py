"""Classify the frames of `kedge classify --camera N` or `--video FILE`."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Rule
from kedge_runtime.commands import answers
from kedge_runtime.commands.options import record
from kedge_runtime.errors import KedgeError, UsageError
from kedge_runtime.output import echo_page, json_text, note, only_python_stderr
from kedge_runtime.streams.answers import (
    LIMIT,
    Answer,
    StreamOptions,
    StreamTally,
    Votes,
    classify_stream,
)
from kedge_runtime.streams.sources import Frame, camera_name, ended, latest, open_camera, open_video

INTERRUPTED = 130  # 128 + SIGINT, as in the shell

# Options that need a stream.
GATES = ("every", "debounce", "motion", "save_unsure", "unsure_limit")


@dataclass(frozen=True)
class StreamRequest:
    """The stream options of a command line; None where an option is missing.

    Raises UsageError for options that exclude each other.
    """

    camera: str | None
    video: Path | None
    every: int | None
    debounce: str | None
    motion: float | None
    save_unsure: Path | None
    unsure_limit: int | None

    def __post_init__(self) -> None:
        """Refuse two streams, and options of a stream without one."""
        if self.camera is not None and self.video is not None:
            raise UsageError("--camera: one stream at a time; omit it or --video")
        for name in GATES:
            if getattr(self, name) is not None and not self.given:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option}: is for streams; name one with --camera or --video")

    @property
    def given(self) -> bool:
        """Whether there is a stream."""
        return self.camera is not None or self.video is not None

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


# The options of a stream, as `stream`: StreamRequest.
stream_options = record(
    "stream",
    StreamRequest,
    click.option("--camera", metavar="N", help="Read a camera: 0, /dev/video0 or rtsp://..."),
    click.option("--video", type=click.Path(path_type=Path), help="Read a video file."),
    click.option(
        "--every", type=click.IntRange(min=1), metavar="N", help="Classify one of N video frames."
    ),
    click.option("--debounce", metavar="K/N", help="Report answers on which K of N frames agree."),
    click.option(
        "--motion",
        type=click.FloatRange(0, 255),
        metavar="X",
        help="Classify frames whose mean grey difference exceeds X, 0..255.",
    ),
    click.option(
        "--save-unsure",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Save unknown frames as JPEG.",
    ),
    click.option(
        "--unsure-limit",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Save at most N frames in DIR [default: {LIMIT}].",
    ),
)


@dataclass(frozen=True)
class StreamSource:
    """An open stream: its name, its frames, the format of their times, and the code of Ctrl-C.

    Only Ctrl-C ends a camera, so its exit code is 0; a video is cut short by it.
    """

    name: str
    frames: Iterator[Frame]
    moment: Callable[[float], str]
    interrupted: int


def _open(request: StreamRequest) -> StreamSource:
    if request.video is not None:
        frames = open_video(request.video, request.every or 1)
        return StreamSource(str(request.video), frames, "{:.2f} s".format, INTERRUPTED)
    if request.every:
        raise UsageError("--every: is for videos; a camera always gives its newest frame")
    camera = request.camera or ""
    name = camera_name(camera)
    return StreamSource(name, latest(open_camera(camera), name), _local_time, 0)


def _local_time(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


@dataclass(frozen=True)
class StreamReport:
    """How to print answers: the artefacts that give them, the number of classes, and the format."""

    artefacts: Sequence[str]
    top: int
    as_json: bool

    def line(self, source: StreamSource, answer: Answer) -> str:
        """Return an answer as text, or as the documented line (docs/json.md)."""
        frame = answer.frame
        if not self.as_json:
            return answers.text(source.moment(frame.seconds), answer.result, self.top)
        payload = {
            "schema": 1,
            "command": "classify",
            "artefacts": list(self.artefacts),
            "source": source.name,
            "time": frame.seconds,
            "frame": frame.index,
            "dropped": frame.dropped,
            **answer.result.to_dict(),
        }
        return json_text(payload, indent=None)


def classify_frames(
    predictor: Predictor, request: StreamRequest, rule: Rule, report: StreamReport
) -> int:
    """Print the answers to a stream until it ends; return the exit code."""
    with only_python_stderr():
        options, source = request.options(report.top, rule), _open(request)
        tally, began, code = StreamTally(), time.monotonic(), 0
        stream = classify_stream(predictor, source.frames, options, tally=tally)
        try:
            with ended(stream):
                for answer in stream:
                    echo_page(report.line(source, answer))
        except KeyboardInterrupt:
            code = source.interrupted
        except KedgeError:
            _sum_up(tally, time.monotonic() - began)
            raise
        _sum_up(tally, time.monotonic() - began)
        return code


def _sum_up(tally: StreamTally, seconds: float) -> None:
    counts = (
        f"{tally.frames} frames, {tally.classified} classified, {tally.answers} answers, "
        f"{tally.dropped} dropped, {tally.saved} unsure saved"
    )
    note(f"{counts}, {tally.frames / seconds:.1f} frames per second")
