"""`kedge classify --camera N` and `--video FILE`: the options of a stream, and its lines."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from kedge_runtime.classify.classifier import Predictor
from kedge_runtime.classify.results import Rule
from kedge_runtime.commands import answers
from kedge_runtime.errors import KedgeError, UsageError
from kedge_runtime.output import json_text, only_python_stderr, say
from kedge_runtime.streams.answers import (
    LIMIT,
    Answer,
    StreamOptions,
    StreamTally,
    Votes,
    classify_stream,
)
from kedge_runtime.streams.mailbox import latest
from kedge_runtime.streams.sources import Frame, camera_name, ended, open_camera, open_video

INTERRUPTED = 130  # 128 + SIGINT, as the shell has it

OPTIONS = (
    click.option("--camera", metavar="N", help="Watch a camera: 0, /dev/video0 or rtsp://..."),
    click.option("--video", type=click.Path(path_type=Path), help="Go through a video file."),
    click.option(
        "--every", type=click.IntRange(min=1), metavar="N", help="One of N frames of a video."
    ),
    click.option("--debounce", metavar="K/N", help="Only answers that K of N frames agree on."),
    click.option(
        "--motion",
        type=click.FloatRange(0, 255),
        metavar="X",
        help="Only frames whose grey pixels change by more than X on average, 0..255.",
    ),
    click.option(
        "--save-unsure",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Keep unknown frames as JPEG.",
    ),
    click.option(
        "--unsure-limit",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Keep so many in DIR at most [default: {LIMIT}].",
    ),
)
GATES = ("every", "debounce", "motion", "save_unsure", "unsure_limit")
IMAGES_ONLY = ("sheet", "save_features")


def stream_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a stream to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def is_stream(options: dict[str, Any]) -> bool:
    """Whether a stream is asked for. Raises UsageError for options that don't go together."""
    sources = _given(("camera", "video"), options)
    if len(sources) > 1:
        raise UsageError("--camera: one stream at a time; leave it or --video out")
    for option in _given(IMAGES_ONLY if sources else GATES, options):
        kind = "images in files" if sources else "streams; name one with --camera or --video"
        raise UsageError(f"{option}: is for {kind}")
    return bool(sources)


def _given(names: Sequence[str], options: dict[str, Any]) -> list[str]:
    return ["--" + name.replace("_", "-") for name in names if options[name] is not None]


@dataclass(frozen=True)
class Feed:
    """An open source: its name, its frames, what it calls their moments, and how Ctrl-C counts.

    A camera has no other end than the user's, which is a success; a video that is cut short isn't.
    """

    name: str
    frames: Iterator[Frame]
    moment: Callable[[float], str]
    interrupted: int


def _feed(options: dict[str, Any]) -> Feed:
    if options["video"]:
        frames = open_video(options["video"], options["every"] or 1)
        return Feed(str(options["video"]), frames, "{:.2f} s".format, INTERRUPTED)
    if options["every"]:
        raise UsageError("--every: is for videos; of a camera the newest frame is taken")
    name = camera_name(options["camera"])
    return Feed(name, latest(open_camera(options["camera"]), name), _local_time, 0)


def _local_time(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _watch(options: dict[str, Any], rule: Rule) -> StreamOptions:
    return StreamOptions(
        top=options["top"],
        rule=rule,
        debounce=Votes.read(options["debounce"]) if options["debounce"] else None,
        motion=options["motion"],
        save_unsure=options["save_unsure"],
        unsure_limit=options["unsure_limit"] or LIMIT,
    )


def watch(model: Predictor, artefacts: Sequence[str], rule: Rule, options: dict[str, Any]) -> int:
    """Print the answers to a stream until it ends; return the exit code."""
    with only_python_stderr():
        return _watched(model, artefacts, rule, options)


def _watched(
    model: Predictor, artefacts: Sequence[str], rule: Rule, options: dict[str, Any]
) -> int:
    asked, feed = _watch(options, rule), _feed(options)
    tally, began = StreamTally(), time.monotonic()
    stream = classify_stream(model, feed.frames, asked, tally=tally)
    said = partial(_json, artefacts) if options["as_json"] else partial(_words, options["top"])
    code = 0
    try:
        _print(stream, partial(said, feed))
    except KeyboardInterrupt:
        code = feed.interrupted
    except KedgeError:
        _sum_up(tally, time.monotonic() - began)
        raise
    _sum_up(tally, time.monotonic() - began)
    return code


def _print(stream: Iterator[Answer], said: Callable[[Answer], str]) -> None:
    with ended(stream):
        for answer in stream:
            click.echo(said(answer))


def _words(top: int, feed: Feed, answer: Answer) -> str:
    return answers.words(feed.moment(answer.frame.seconds), answer.result, top)


def _json(artefacts: Sequence[str], feed: Feed, answer: Answer) -> str:
    """Return the documented line (docs/json.md)."""
    frame = answer.frame
    head = {"schema": 1, "command": "classify", "artefacts": list(artefacts), "source": feed.name}
    place = {"time": frame.seconds, "frame": frame.index, "dropped": frame.dropped}
    return json_text({**head, **place, **answers.facts(answer.result)}, indent=None)


def _sum_up(tally: StreamTally, seconds: float) -> None:
    counts = (
        f"{tally.frames} frames, {tally.classified} classified, {tally.answers} answers, "
        f"{tally.dropped} dropped, {tally.saved} unsure saved"
    )
    say(f"{counts}, {tally.frames / seconds:.1f} frames per second")
