"""Streams: the sources, and the mailbox that keeps the newest frame."""

import re
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest

from kedge_runtime import ImageError, UsageError
from kedge_runtime.arrays import Pixels
from kedge_runtime.image.decode import ImageLimits
from kedge_runtime.streams import sources
from kedge_runtime.streams.sources import (
    FAILURES,
    Frame,
    camera_name,
    latest,
    numbered,
    open_camera,
    open_video,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int]) -> Pixels:
    return np.ascontiguousarray(np.broadcast_to(np.array(colour, np.uint8), (48, 64, 3)))


def frames(count: int, colour: tuple[int, int, int] = RED) -> list[Frame]:
    return [Frame(i, i / 10, plain(colour)) for i in range(count)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of 12 frames, ten a second: four red, four green, four blue."""
    path = tmp_path_factory.mktemp("video") / "colours.avi"
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), fourcc, 10, (64, 48))
    for colour in (RED, GREEN, BLUE):
        for _ in range(4):
            writer.write(plain(colour[::-1]))
    writer.release()
    return path


# Sources


def test_a_video_gives_every_frame_with_its_time_in_rgb(video: Path) -> None:
    found = list(open_video(video))
    assert [frame.index for frame in found] == list(range(12))
    assert [frame.seconds for frame in found] == pytest.approx([i / 10 for i in range(12)])
    for frame, colour in zip(found, np.repeat([RED, GREEN, BLUE], 4, axis=0), strict=True):
        assert frame.pixels.shape == (48, 64, 3)
        assert np.abs(frame.pixels.astype(int) - colour).max() <= 3


def test_every_third_frame_keeps_its_own_index_and_time(video: Path) -> None:
    found = [(frame.index, round(frame.seconds, 6)) for frame in open_video(video, every=3)]
    assert found == [(0, 0.0), (3, 0.3), (6, 0.6), (9, 0.9)]


def test_a_video_cut_short_ends_cleanly(video: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.avi"
    chunks = video.read_bytes().split(b"00dc")  # one begins each frame
    short.write_bytes(b"00dc".join(chunks[:6]) + b"00dc" + chunks[6][:100])
    found = [frame.index for frame in open_video(short)]
    assert 4 <= len(found) <= 6
    assert found == list(range(len(found)))


NO_VIDEOS = {
    "missing.mp4": None,
    "text.mp4": b"words\n" * 500,
    "empty.avi": b"",
    "zeros.mkv": bytes(9000),
    "100%d.mp4": b"words\n" * 500,
}


@pytest.mark.parametrize("name", NO_VIDEOS)
def test_what_is_no_video_is_one_line(name: str, tmp_path: Path) -> None:
    path, content = tmp_path / name, NO_VIDEOS[name]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=re.escape(f"{path}: no ")) as caught:
        list(open_video(path))
    assert "\n" not in str(caught.value)


def test_a_video_that_may_not_be_read_says_so(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="file name too long"):
        open_video("x" * 300)

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        open_video(video)


def test_frames_larger_than_allowed_are_refused_before_they_are_read(video: Path) -> None:
    with pytest.raises(ImageError, match="frames of 64x48 pixels, allowed are 3071 in all"):
        open_video(video, limits=ImageLimits(pixels=64 * 48 - 1))
    assert next(open_video(video, limits=ImageLimits(pixels=64 * 48))).index == 0


def test_frames_cost_no_more_memory_than_images(video: Path) -> None:
    with pytest.raises(ImageError, match="frames of 64x48 pixels, allowed are 3071 in all"):
        open_video(video, limits=ImageLimits(memory=14 * 64 * 48 - 1))
    assert next(open_video(video, limits=ImageLimits(memory=14 * 64 * 48))).index == 0


def test_every_of_nothing_is_refused(video: Path) -> None:
    with pytest.raises(UsageError, match="every is 0"):
        open_video(video, every=0)


def test_a_camera_that_stops_is_given_up_after_some_failures(video: Path) -> None:
    # OpenCV reads a file as it does a camera; this one "is unplugged" after twelve frames.
    pauses: list[float] = []
    camera = open_camera(str(video), clock=lambda: 7.0, pause=pauses.append)
    found = [next(camera) for _ in range(12)]
    assert [(frame.index, frame.seconds) for frame in found] == [(i, 7.0) for i in range(12)]
    assert np.abs(found[0].pixels.astype(int) - RED).max() <= 3
    with pytest.raises(ImageError, match="stopped after 12 frames; check its cable"):
        next(camera)
    assert len(pauses) == FAILURES


@pytest.mark.parametrize("name", ["97", "/dev/video97"])
def test_a_missing_camera_says_what_to_check(name: str) -> None:
    with pytest.raises(ImageError, match=f"^camera {name}: can't be opened; check that"):
        open_camera(name)


NAMES = {
    "0": "camera 0",
    "/dev/video0": "camera /dev/video0",
    "rtsp://10.0.0.7:554/live": "camera rtsp://10.0.0.7:554/live",
    "rtsp://me:se/cr@et@10.0.0.7/live?mail=a@b": "camera rtsp://10.0.0.7/live?mail=a@b",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_camera_is_called_without_its_password(name: str) -> None:
    assert camera_name(name) == NAMES[name]


@pytest.mark.parametrize(("colour", "pixels"), [("rgb", RED), ("bgr", RED[::-1])])
def test_arrays_are_numbered_timed_and_turned_to_rgb(colour: Any, pixels: Any) -> None:
    ticks = iter((5.0, 6.5))
    first, second = numbered([plain(pixels)] * 2, colour, clock=lambda: next(ticks))
    assert [(f.index, f.seconds, f.dropped) for f in (first, second)] == [(0, 5, 0), (1, 6.5, 0)]
    np.testing.assert_array_equal(second.pixels, plain(RED))


@pytest.mark.parametrize(
    "array",
    [np.zeros((48, 64, 4), np.uint8), np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3))],
    ids=["XRGB8888", "grey", "float"],
)
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_other_arrays_are_refused(array: Any, colour: Any) -> None:
    with pytest.raises(ImageError, match="expected uint8"):
        next(numbered([array], colour))


# The newest frame


def test_the_mailbox_holds_one_frame_however_many_are_put_in() -> None:
    box, alive = sources.Mailbox(), weakref.WeakSet[Frame]()
    for index in range(1000):
        frame = Frame(index, 0.0, plain(RED))
        alive.add(frame)
        assert box.put(frame)
        del frame
    assert len(alive) == 1
    taken = box.take(timeout=0)
    assert isinstance(taken, Frame)
    assert (taken.index, taken.dropped) == (999, 999)
    with pytest.raises(TimeoutError):
        box.take(timeout=0)


def test_the_last_frame_comes_before_the_end_and_before_the_error() -> None:
    for error in (None, ImageError("gone")):
        box = sources.Mailbox()
        box.put(frames(1)[0])
        box.end(error)
        assert not box.put(frames(2)[1])
        taken = box.take(timeout=0)
        assert isinstance(taken, Frame)
        assert (taken.index, taken.dropped) == (0, 0)
        if error is None:
            assert box.take(timeout=0) is None
        else:
            with pytest.raises(ImageError, match="gone"):
                box.take(timeout=0)


def test_a_camera_faster_than_the_model_drops_all_but_the_newest() -> None:
    go, done = threading.Event(), threading.Event()

    def camera() -> Iterator[Frame]:
        first, *others = frames(100)
        yield first
        go.wait()
        yield from others
        done.set()

    newest = latest(camera())
    first = next(newest)
    go.set()
    done.wait()
    second = next(newest)
    assert [(f.index, f.dropped) for f in (first, second)] == [(0, 0), (99, 98)]
    assert list(newest) == []


def test_a_camera_slower_than_the_model_loses_nothing() -> None:
    wanted = threading.Semaphore(0)

    def camera() -> Iterator[Frame]:
        for frame in frames(5):
            wanted.acquire()
            yield frame

    newest, found = latest(camera()), []
    for _ in range(5):
        wanted.release()
        found.append(next(newest))
    assert [(f.index, f.dropped) for f in found] == [(i, 0) for i in range(5)]


def test_the_thread_and_the_camera_end_with_the_consumer() -> None:
    released = threading.Event()

    def camera() -> Iterator[Frame]:
        try:
            while True:
                yield from frames(1)
        finally:
            released.set()

    newest = latest(camera())
    next(newest)
    assert "kedge-capture" in {thread.name for thread in threading.enumerate()}
    newest.close()  # type: ignore[attr-defined]
    assert released.is_set()
    assert "kedge-capture" not in {thread.name for thread in threading.enumerate()}


def test_an_error_in_the_thread_reaches_the_consumer() -> None:
    def camera() -> Iterator[Frame]:
        yield from frames(1)
        raise ZeroDivisionError("in the thread")

    newest = latest(camera())
    assert next(newest).index == 0
    with pytest.raises(ZeroDivisionError, match="in the thread"):
        next(newest)


def test_a_camera_that_hangs_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0)
    hanging = threading.Event()

    def camera() -> Iterator[Frame]:
        hanging.wait()
        yield from frames(1)

    with pytest.raises(ImageError, match=r"^camera 3: no frame for 0\.01 s; check its cable"):
        next(latest(camera(), "camera 3", timeout=0.01))
    hanging.set()


@pytest.mark.parametrize("empty", [None, [[0]], 7])
def test_an_empty_frame_is_an_image_error(empty: Any) -> None:
    for source in (numbered([empty]), latest([empty])):
        with pytest.raises(ImageError, match=r"^a frame is (NoneType|list|int), expected an array"):
            next(source)


class Dropping:
    """A camera whose driver says that it read a frame and gives none, now and then."""

    def __init__(self) -> None:
        self._turn = 0

    def read(self) -> tuple[bool, Pixels | None]:
        self._turn += 1
        return True, plain(RED[::-1]) if self._turn % 2 else None

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def release(self) -> None:
        pass


def test_a_camera_may_drop_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Dropping())
    found = open_camera("0", pause=lambda _: None)
    assert [next(found).index for _ in range(3)] == [0, 1, 2]
