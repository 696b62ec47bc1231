"""Streams, piece by piece: sources, the mailbox, the gates, the folder of unsure frames."""

import re
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kedge_models.demo import pictograms
from kedge_runtime import Classifier, ImageError, Rule, UsageError
from kedge_runtime.image import Limits, Pixels, read_image
from kedge_runtime.streams import (
    Debounce,
    Frame,
    Motion,
    Tally,
    UnsureFolder,
    Votes,
    Watch,
    classify_stream,
    latest,
    mailbox,
    numbered,
    open_camera,
    open_video,
)
from kedge_runtime.streams.capture import FAILURES

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int]) -> Pixels:
    return np.ascontiguousarray(np.broadcast_to(np.array(colour, np.uint8), (48, 64, 3)))


def frames(count: int, colour: tuple[int, int, int] = RED) -> list[Frame]:
    return [Frame(i, i / 10, plain(colour)) for i in range(count)]


@pytest.fixture
def classifier(artefacts: Path) -> Classifier:
    pytest.importorskip("ai_edge_litert")
    return Classifier.open(artefacts / "tiny.tflite")


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
    short.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert 0 < len(list(open_video(short))) < 12


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


def test_frames_larger_than_allowed_are_refused_before_they_are_read(video: Path) -> None:
    with pytest.raises(ImageError, match="frames of 64x48 pixels, allowed are 3071 in all"):
        open_video(video, limits=Limits(pixels=64 * 48 - 1))
    assert next(open_video(video, limits=Limits(pixels=64 * 48))).index == 0


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
    with pytest.raises(ImageError, match="stopped giving frames after 12; check its cable"):
        next(camera)
    assert len(pauses) == FAILURES


@pytest.mark.parametrize("name", ["97", "/dev/video97"])
def test_a_missing_camera_says_what_to_check(name: str) -> None:
    with pytest.raises(ImageError, match=f"^camera {name}: can't be opened; is it plugged in"):
        open_camera(name)


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
    box, alive = mailbox.Mailbox(), weakref.WeakSet[Frame]()
    for index in range(1000):
        frame = Frame(index, 0.0, plain(RED))
        alive.add(frame)
        assert box.put(frame)
        del frame
    assert len(alive) == 1
    taken = box.take(timeout=0)
    assert taken is not None
    assert (taken.index, taken.dropped) == (999, 999)
    with pytest.raises(TimeoutError):
        box.take(timeout=0)


def test_the_last_frame_comes_before_the_end_and_before_the_error() -> None:
    for error in (None, ImageError("gone")):
        box = mailbox.Mailbox()
        box.put(frames(1)[0])
        box.end(error)
        assert not box.put(frames(2)[1])
        taken = box.take(timeout=0)
        assert taken is not None
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
    monkeypatch.setattr(mailbox, "PATIENCE", 0)
    hanging = threading.Event()

    def camera() -> Iterator[Frame]:
        hanging.wait()
        yield from frames(1)

    with pytest.raises(ImageError, match=r"^camera 3: gave no frame for 0\.01 s; check its cable"):
        next(latest(camera(), "camera 3", timeout=0.01))
    hanging.set()


# The gates

DEBOUNCED = [
    ("1/1", "aabba", "a.b.a"),
    ("2/2", "abaabb", "...a.b"),
    ("3/5", "aababbbb", "...a.b.."),
    ("3/5", "abababab", "....abab"),
    ("2/5", "aabba", ".a.ba"),
    ("3/3", "aabaab", "......"),
    ("1/3", "abc", "abc"),
]


@pytest.mark.parametrize(("votes", "answers", "expected"), DEBOUNCED)
def test_an_answer_counts_when_enough_frames_agree(votes: str, answers: str, expected: str) -> None:
    debounce = Debounce(Votes.read(votes))
    assert "".join(a if debounce(a) else "." for a in answers) == expected


def test_unknown_is_an_answer_that_can_be_stable() -> None:
    debounce = Debounce(Votes(2, 2))
    assert [debounce(answer) for answer in (None, None, None, 1, 1)] == [0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    "text", ["3", "3/", "/5", "6/5", "0/5", "-1/5", "3/5/7", "a/b", "", "3 /5"]
)
def test_votes_that_can_not_be_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="3/5"):
        Votes.read(text)


MOTIONS = [
    (3, [0, 2, 4, 6, 7], [1, 0, 1, 0, 0]),
    (3, [100, 104, 100], [1, 1, 1]),
    (0, [9, 9, 10, 10], [1, 0, 1, 0]),
    # Slow change adds up: each frame is compared with the last that moved.
    (5, [10, 12, 14, 16, 18], [1, 0, 0, 1, 0]),
    (255, [0, 255], [1, 0]),
]


@pytest.mark.parametrize(("threshold", "greys", "expected"), MOTIONS)
def test_motion_is_a_difference_to_the_last_frame_that_moved(
    threshold: float, greys: list[int], expected: list[int]
) -> None:
    motion = Motion(threshold)
    assert [motion(plain((grey, grey, grey))) for grey in greys] == expected


def test_motion_counts_the_share_of_the_picture_that_changes() -> None:
    still = np.zeros((640, 640, 3), np.uint8)
    corner = still.copy()
    corner[:160, :160] = 160  # 1/16 of the picture: a mean of 10
    for threshold, moved in ((9.9, True), (10.1, False)):
        motion = Motion(threshold)
        assert [motion(still), motion(corner)] == [True, moved]


@pytest.mark.parametrize("threshold", [-1, 256, float("nan")])
def test_motion_beyond_a_byte_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="allowed are 0"):
        Motion(threshold)


# The unsure ones


def test_a_saved_frame_is_the_same_picture(tmp_path: Path) -> None:
    pictograms.write(tmp_path / "drawn", 1, seed=3)
    (drawn,) = (tmp_path / "drawn").iterdir()
    pixels = read_image(drawn)
    folder = UnsureFolder(tmp_path / "new" / "unsure", clock=lambda: 1e9 + 0.25)
    assert folder.save(Frame(41, 0.0, pixels))
    (saved,) = (tmp_path / "new" / "unsure").iterdir()
    assert saved.name == "20010909T014640.250000Z-41.jpg"
    difference = np.abs(read_image(saved).astype(int) - pixels)
    assert difference.mean() < 3
    # Red and blue in each other's place would differ by more.
    assert np.abs(read_image(saved)[..., ::-1].astype(int) - pixels).mean() > difference.mean()


def test_names_are_unique_though_the_clock_stands_still(tmp_path: Path) -> None:
    for _ in range(2):
        folder = UnsureFolder(tmp_path, clock=lambda: 0.0)
        assert [folder.save(frame) for frame in frames(2)] == [True, True]
    names = sorted(path.name for path in tmp_path.iterdir())
    start = "19700101T000000.000000Z"
    assert names == [f"{start}-{end}.jpg" for end in ("0-1", "0", "1-1", "1")]


def test_the_folder_is_never_fuller_than_its_limit(tmp_path: Path) -> None:
    assert [UnsureFolder(tmp_path, 2).save(frame) for frame in frames(1)] == [True]
    again = UnsureFolder(tmp_path, 2)
    assert [again.save(frame) for frame in frames(3)] == [True, False, False]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words")
    with pytest.raises(UsageError, match="can't be a folder"):
        UnsureFolder(tmp_path / "file" / "unsure")


# All together


def said(
    classifier: Classifier, colours: Iterable[tuple[int, int, int]], watch: Watch
) -> tuple[list[tuple[int, str | None]], Tally]:
    tally = Tally()
    stream = classify_stream(classifier, map(plain, colours), watch, tally=tally)
    return [(answer.frame.index, answer.result.label) for answer in stream], tally


def test_every_frame_is_answered_without_gates(classifier: Classifier, video: Path) -> None:
    found = [answer.result.label for answer in classify_stream(classifier, open_video(video))]
    assert found == ["red"] * 4 + ["green"] * 4 + ["blue"] * 4


@pytest.mark.parametrize(("colour", "pixels"), [("rgb", RED), ("bgr", RED[::-1])])
def test_arrays_are_answered_in_their_colour_order(
    classifier: Classifier, colour: Any, pixels: Any
) -> None:
    (answer,) = classify_stream(classifier, [plain(pixels)], Watch(top=2), colour=colour)
    assert (answer.result.label, len(answer.result.predictions)) == ("red", 2)


def test_a_still_frame_votes_for_the_last_answer(classifier: Classifier) -> None:
    colours = [RED, *[GREEN] * 5]
    found, tally = said(classifier, colours, Watch(debounce=Votes(3, 5), motion=3))
    assert found == [(3, "green")]
    assert tally == Tally(frames=6, classified=2, answers=1)


def test_motion_alone_answers_what_moved(classifier: Classifier) -> None:
    found, tally = said(classifier, [RED, RED, BLUE, BLUE, RED], Watch(motion=3))
    assert found == [(0, "red"), (2, "blue"), (4, "red")]
    assert tally == Tally(frames=5, classified=3, answers=3)


def test_unknown_frames_are_saved_and_the_others_are_not(
    classifier: Classifier, tmp_path: Path
) -> None:
    # The tiny model says .8999 of red and .9027 of green.
    watch = Watch(rule=Rule(min_confidence=0.901), save_unsure=tmp_path, unsure_limit=2)
    found, tally = said(classifier, [RED, GREEN, RED, RED], watch)
    assert found == [(0, None), (1, "green"), (2, None), (3, None)]
    assert tally == Tally(frames=4, classified=4, answers=4, saved=2)
    indices = sorted(path.stem.rpartition("-")[2] for path in tmp_path.iterdir())
    assert indices == ["0", "2"]
    for path in tmp_path.iterdir():
        assert classifier(path).best.name == "red"


def test_saving_what_can_not_be_unsure_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without a least confidence"):
        classify_stream(classifier, [], Watch(save_unsure=tmp_path / "unsure"))
    assert not (tmp_path / "unsure").exists()


def test_the_source_is_closed_when_the_consumer_stops(classifier: Classifier) -> None:
    closed = []

    def source() -> Iterator[Frame]:
        try:
            yield from frames(9)
        finally:
            closed.append(True)

    stream = classify_stream(classifier, source())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_a_frame_that_can_not_be_read_ends_the_stream(classifier: Classifier) -> None:
    stream = classify_stream(classifier, [plain(RED), np.zeros((2, 2), np.uint8)])
    assert next(stream).result.label == "red"
    with pytest.raises(ImageError):
        next(stream)
