"""Classify the frames of a video or a camera as they arrive.

from kedge_runtime import Classifier
from kedge_runtime.streams import classify_stream, open_video

for answer in classify_stream(Classifier.open("mobilenet.int8.tflite"), open_video("walk.mp4")):
    print(answer.frame.seconds, answer.result.label)

docs/streams.md explains how to choose the gates, and what a camera needs.
"""

from kedge_runtime.streams.answers import (
    Answer,
    Debounce,
    FrameClassifier,
    Motion,
    StreamOptions,
    StreamTally,
    UnsureFolder,
    Votes,
    classify_stream,
)
from kedge_runtime.streams.events import Event, Observer
from kedge_runtime.streams.live import open_live
from kedge_runtime.streams.sources import Frame, latest, numbered, open_camera, open_video

__all__ = [
    "Answer",
    "Debounce",
    "Event",
    "Frame",
    "FrameClassifier",
    "Motion",
    "Observer",
    "StreamOptions",
    "StreamTally",
    "UnsureFolder",
    "Votes",
    "classify_stream",
    "latest",
    "numbered",
    "open_camera",
    "open_live",
    "open_video",
]
