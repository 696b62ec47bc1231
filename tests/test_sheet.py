"""The contact sheet: a picture that holds every photo, every name, and the colours that say who
answered. What it looks like is for the eye; here is what can be counted.
"""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kedge_runtime.artefact.contract import Label
from kedge_runtime.classify import contact_sheet
from kedge_runtime.classify.contact_sheet import (
    ALARM,
    CARD_WIDTH,
    COLUMNS,
    FRAME,
    HUES,
    LIMIT,
    RIGHT,
    ContactSheet,
)
from kedge_runtime.classify.marks import Mark
from kedge_runtime.classify.results import Prediction, Result
from kedge_runtime.errors import ImageError


def _result(name: str, probability: float = 0.75) -> Result:
    best = Prediction(0, name, name, probability)
    return Result(best, (best,), 0.5, 0.5)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a wide picture in a green that the sheet doesn't use."""
    path = tmp_path / "photo.png"
    pixels = np.full((300, 600, 3), (10, 250, 20), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


def _drawn(board: ContactSheet) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(board.png(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _count(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((pixels == np.array(colour, np.uint8)).all(axis=-1).sum())


def test_every_picture_is_on_the_sheet_whole(photo: Path) -> None:
    board = ContactSheet(["one.tflite"])
    for _ in range(COLUMNS + 1):
        board.add(photo, [_result("thing")])
    pixels = _drawn(board)
    assert _count(pixels, (20, 250, 10)) == (COLUMNS + 1) * FRAME.width * FRAME.width // 2
    assert pixels.shape[1] == 2 * contact_sheet.MARGIN + COLUMNS * (CARD_WIDTH + 20) - 20


def test_a_bar_is_as_long_as_its_probability(photo: Path) -> None:
    board = ContactSheet(["one.tflite", "two.tflite"])
    board.add(photo, [_result("thing", 1.0), _result("thing", 0.25)])
    pixels = _drawn(board)
    chip, bar = 12 * 12, contact_sheet.BAR_WIDTH * contact_sheet.BAR_HEIGHT
    assert _count(pixels, HUES[0]) == chip + bar
    assert _count(pixels, HUES[1]) == chip + bar // 4


@pytest.mark.parametrize(("names", "cards"), [(("cat", "cat"), 0), (("cat", "dog"), 1)])
def test_models_that_disagree_raise_an_alarm(
    photo: Path, names: tuple[str, str], cards: int
) -> None:
    board = ContactSheet(["one.tflite", "two.tflite"])
    board.add(photo, [_result(name) for name in names])
    assert _count(_drawn(board), ALARM) == 12 * 12 + cards * 4 * CARD_WIDTH


LONG = [
    "word " * 40,
    "x" * 300,
    "hen-of-the-woods, hen of the woods, Polyporus frondosus, Grifola frondosa",
    "猫 Köln naïve",
    "",
]


@pytest.mark.parametrize("name", LONG)
def test_a_long_name_stays_on_its_card(photo: Path, name: str) -> None:
    room = FRAME.width - contact_sheet.BAR_WIDTH - contact_sheet.PERCENT_WIDTH
    board = ContactSheet(["t" * 500])
    board.add(photo, [_result(name)])
    (tile,) = board.tiles
    (answer,) = tile.answers
    assert 1 <= len(answer.lines) <= contact_sheet.NAME_LINES
    for line in answer.lines:
        assert line.isascii()
        assert cv2.getTextSize(line, contact_sheet.FONT, contact_sheet.SCALE, 1)[0][0] <= room
    pixels = _drawn(board)
    # Nothing is written on the right margin.
    assert (pixels[:, -contact_sheet.MARGIN :] == np.array(contact_sheet.PAPER)).all()


def test_accents_become_ascii() -> None:
    assert contact_sheet._ascii("Köln, naïve 猫") == "Koln, naive ?"


def test_one_model_names_its_best_classes_and_none_is_shown_too(photo: Path) -> None:
    ranked = tuple(Prediction(i, "", f"n{i}", 0.9 - i / 10) for i in range(5))
    board = ContactSheet(["one.tflite"])
    board.add(photo, [Result(ranked[0], ranked, 0.1, 0.1)])
    board.add(photo, [Result(ranked[0], (), 0.1, 0.1, unknown=True)])
    first, second = board.tiles
    assert [answer.lines for answer in first.answers] == [["n0"], ["n1"], ["n2"]]
    assert [answer.lines for answer in second.answers] == [["n0 (unknown)"]]


def test_a_sheet_is_bounded(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIMIT <= 200
    monkeypatch.setattr(contact_sheet, "LIMIT", 2)
    board = ContactSheet(["one.tflite"])
    for _ in range(5):
        board.add(photo, [_result("thing")])
    assert (len(board.tiles), board.skipped) == (2, 3)


def test_what_is_no_picture_is_no_tile(tmp_path: Path) -> None:
    board = ContactSheet(["one.tflite"])
    with pytest.raises(ImageError):
        board.add(tmp_path / "none.jpg", [_result("thing")])
    assert board.tiles == []


def test_the_command_draws_what_it_answers(artefacts: Path, photo: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    out = photo.with_name("sheet.png")
    out.write_bytes(b"what was there before")
    words = ["classify", artefacts / "tiny.tflite", photo, photo.with_name("none.png")]
    command = [sys.executable, "-m", "kedge_runtime.cli", *words, "--sheet", out, "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(json.loads(done.stdout)["results"]) == 1
    drawn = cv2.imread(str(out))
    assert drawn is not None
    assert _count(np.asarray(drawn, np.uint8), (10, 250, 20)) == FRAME.width * FRAME.width // 2
    assert not list(photo.parent.glob(".kedge-*"))


def test_right_and_wrong_are_marked(photo: Path) -> None:
    truth = Label("b", "blue")
    drawn = {}
    for right in (True, False):
        board = ContactSheet(["m"])
        board.add(photo, [_result("red")], [Mark(truth, right)])
        drawn[right] = _drawn(board)
        assert board.tiles[0].verdict == ("right" if right else "wrong, it is blue")
    # Both colours are in the legend; a strip of the card's width tells which it is.
    for right, pixels in drawn.items():
        assert _count(pixels, RIGHT if right else ALARM) >= 4 * CARD_WIDTH
        assert _count(pixels, ALARM if right else RIGHT) < 4 * CARD_WIDTH
