"""From frames to answers: the gates, the folder of unsure frames, and all of it together."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_models.demo import pictograms
from kedge_runtime import Classifier, ImageError, Rule, UsageError
from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.contract import Label
from kedge_runtime.classify.predictor import Predictor
from kedge_runtime.classify.results import Classes
from kedge_runtime.image.decode import read_image
from kedge_runtime.streams import answers
from kedge_runtime.streams.answers import (
    Debounce,
    Motion,
    StreamOptions,
    StreamTally,
    UnsureFolder,
    Votes,
    classify_stream,
)
from kedge_runtime.streams.sources import Frame

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int]) -> Pixels:
    return np.ascontiguousarray(np.broadcast_to(np.array(colour, np.uint8), (48, 64, 3)))


def frames(count: int, colour: tuple[int, int, int] = RED) -> list[Frame]:
    return [Frame(i, i / 10, plain(colour)) for i in range(count)]


@pytest.fixture
def classifier(artefacts: Path) -> Classifier:
    pytest.importorskip("ai_edge_litert")
    return Classifier.open(artefacts / "tiny.tflite")


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


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2000, 3), (1080, 1920, 3)])
def test_motion_takes_frames_of_any_size(shape: tuple[int, ...]) -> None:
    motion = Motion(3)
    assert [motion(np.full(shape, grey, np.uint8)) for grey in (90, 92, 94)] == [1, 0, 1]


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


def test_an_emptied_folder_takes_frames_again(tmp_path: Path) -> None:
    folder = UnsureFolder(tmp_path, limit=1)
    assert [folder.save(frame) for frame in frames(2)] == [True, False]
    for path in tmp_path.iterdir():
        path.unlink()
    assert folder.save(frames(1)[0])


def test_a_full_disk_ends_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = UnsureFolder(tmp_path)

    def full(path: Path, content: bytes) -> None:
        raise UsageError(f"{path}: can't be written (no space left on device)")

    with monkeypatch.context() as disk:
        disk.setattr(answers, "write_whole", full)
        assert [folder.save(frame) for frame in frames(3)] == [False] * 3
    assert capsys.readouterr().err.count("unsure frames are lost: ") == 1
    assert folder.save(frames(1)[0])


def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words")
    with pytest.raises(UsageError, match="can't create this folder"):
        UnsureFolder(tmp_path / "file" / "unsure")


# All together


def said(
    classifier: Classifier, colours: Iterable[tuple[int, int, int]], options: StreamOptions
) -> tuple[list[tuple[int, str | None]], StreamTally]:
    tally = StreamTally()
    stream = classify_stream(classifier, map(plain, colours), options, tally=tally)
    return [(answer.frame.index, answer.result.label) for answer in stream], tally


def test_every_frame_is_answered_without_gates(classifier: Classifier) -> None:
    found, tally = said(classifier, [RED, RED, GREEN, BLUE], StreamOptions())
    assert found == [(0, "red"), (1, "red"), (2, "green"), (3, "blue")]
    assert tally == StreamTally(frames=4, classified=4, answers=4)


@pytest.mark.parametrize(("colour", "pixels"), [("rgb", RED), ("bgr", RED[::-1])])
def test_arrays_are_answered_in_their_colour_order(
    classifier: Classifier, colour: Any, pixels: Any
) -> None:
    (answer,) = classify_stream(classifier, [plain(pixels)], StreamOptions(top=2), colour=colour)
    assert (answer.result.label, len(answer.result.predictions)) == ("red", 2)


def test_a_still_frame_votes_for_the_last_answer(classifier: Classifier) -> None:
    colours = [RED, *[GREEN] * 5]
    found, tally = said(classifier, colours, StreamOptions(debounce=Votes(3, 5), motion=3))
    assert found == [(3, "green")]
    assert tally == StreamTally(frames=6, classified=2, answers=1)


def test_motion_alone_answers_what_moved(classifier: Classifier) -> None:
    found, tally = said(classifier, [RED, RED, BLUE, BLUE, RED], StreamOptions(motion=3))
    assert found == [(0, "red"), (2, "blue"), (4, "red")]
    assert tally == StreamTally(frames=5, classified=3, answers=3)


class ByColour(Predictor):
    """Each class is as probable as its channel is bright."""

    def __init__(self, names: tuple[str, str, str], *, multi_label: bool) -> None:
        labels = tuple(Label(f"c{i}", name) for i, name in enumerate(names))
        self.classes = Classes(labels, multi_label=multi_label)

    def probabilities(self, image: Any, colour: Any = "rgb") -> NDArray[np.float32]:
        return np.asarray(np.mean(image, axis=(0, 1)) / 255, np.float32)

    def close(self) -> None:
        raise AssertionError("nobody closes it")


ORANGE, LIME = (255, 200, 0), (200, 255, 0)
VOTES = [
    # Several answers are one set, whichever is the surest; none at all is unknown.
    (True, ("r", "g", "b"), [ORANGE, LIME, RED, RED, (9, 9, 9), (9, 9, 9), BLUE], [1, 3, 5]),
    # ImageNet has two cranes: the bird and the machine.
    (False, ("crane", "crane", "b"), [RED, RED, GREEN, GREEN, GREEN], [1, 3]),
]


@pytest.mark.parametrize(("multi_label", "names", "colours", "expected"), VOTES)
def test_frames_agree_when_their_classes_are_the_same(
    multi_label: bool, names: Any, colours: Any, expected: list[int]
) -> None:
    model = ByColour(names, multi_label=multi_label)
    stream = classify_stream(model, map(plain, colours), StreamOptions(debounce=Votes(2, 2)))
    assert [answer.frame.index for answer in stream] == expected


def test_unknown_frames_are_saved_and_the_others_are_not(
    classifier: Classifier, tmp_path: Path
) -> None:
    pale = (180, 90, 90)  # .62 red, where pure colours have .90
    options = StreamOptions(rule=Rule(min_confidence=0.8), save_unsure=tmp_path, unsure_limit=2)
    found, tally = said(classifier, [pale, GREEN, pale, pale], options)
    assert found == [(0, None), (1, "green"), (2, None), (3, None)]
    assert tally == StreamTally(frames=4, classified=4, answers=4, saved=2)
    indices = sorted(path.stem.rpartition("-")[2] for path in tmp_path.iterdir())
    assert indices == ["0", "2"]
    for path in tmp_path.iterdir():
        assert classifier(path).best.name == "red"


def test_saving_what_can_not_be_unsure_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --min-confidence"):
        classify_stream(classifier, [], StreamOptions(save_unsure=tmp_path / "unsure"))
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
