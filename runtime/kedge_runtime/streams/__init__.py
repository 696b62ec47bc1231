"""Classify the frames of a video, a camera or Picamera2 as they arrive.

from kedge_runtime import Classifier
from kedge_runtime.streams import classify_stream, open_video

for answer in classify_stream(Classifier.open("mobilenet.int8.tflite"), open_video("walk.mp4")):
    print(answer.frame.seconds, answer.result.label)

docs/streams.md explains how to choose the gates, and what a camera needs.
"""

from kedge_runtime.streams.answers import (
    Answer,
    Debounce,
    Motion,
    StreamOptions,
    StreamTally,
    UnsureFolder,
    Votes,
    classify_stream,
)
from kedge_runtime.streams.sources import Frame, latest, numbered, open_camera, open_video

__all__ = [
    "Answer",
    "Debounce",
    "Frame",
    "Motion",
    "StreamOptions",
    "StreamTally",
    "UnsureFolder",
    "Votes",
    "classify_stream",
    "latest",
    "numbered",
    "open_camera",
    "open_video",
]
