"""Draw the contact sheet: images with each model's results below them.

All measures are in pixels, all colours in RGB. OpenCV draws ASCII only: accents are dropped, and
other characters become `?`.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.contract import Geometry
from kedge_runtime.classify.marks import Mark
from kedge_runtime.classify.results import Prediction, Result, disagree
from kedge_runtime.image.decode import read_image
from kedge_runtime.image.geometry import reduction, resize
from kedge_runtime.image.opencv import cv2
from kedge_runtime.output import percent

# A contact sheet of LIMIT images takes about 100 MB while it is drawn.
LIMIT = 200
COLUMNS = 4
FRAME = Geometry(216, 288, fit="letterbox")
MARGIN, GUTTER, INSET = 28, 20, 12
CARD_WIDTH = FRAME.width + 2 * INSET
LINE, BAR_WIDTH, BAR_HEIGHT, PERCENT_WIDTH = 22, 48, 8, 52
FONT, SCALE = cv2.FONT_HERSHEY_DUPLEX, 0.45
# The number of classes shown for a single model, and of lines for a name.
NAMED, NAME_LINES = 3, 2

Colour = tuple[int, int, int]
PAPER, CARD, RAIL = (241, 243, 245), (255, 255, 255), (226, 229, 234)
INK, FAINT = (31, 41, 55), (112, 120, 132)
RIGHT, ALARM = (0, 120, 70), (200, 40, 60)
# One colour per model; colour-blind readers can tell them apart (Okabe and Ito 2008).
HUES: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
)


class Caption(NamedTuple):
    """One bar with its name, broken into lines, below an image."""

    hue: Colour
    probability: float
    lines: list[str]


class Tile(NamedTuple):
    """One image of the contact sheet, at most FRAME in size."""

    pixels: Pixels
    name: str
    answers: list[Caption]
    alarm: bool
    marks: tuple[Mark, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether all results are right, or the true class; empty without ground truth."""
        wrong = [mark.words for mark in self.marks if not mark.right]
        return next(iter(wrong), "right") if self.marks else ""

    @property
    def strip(self) -> Colour | None:
        """The colour above the card: right or wrong, else an alarm."""
        if self.marks:
            return RIGHT if self.verdict == "right" else ALARM
        return ALARM if self.alarm else None

    @property
    def height(self) -> int:
        """The height of its card."""
        lines = 1 + bool(self.marks) + sum(len(answer.lines) for answer in self.answers)
        return FRAME.height + 2 * INSET + LINE * lines + LINE // 2


@dataclass
class ContactSheet:
    """Collects small copies of images with their results; `png` draws them all."""

    titles: Sequence[str]
    tiles: list[Tile] = field(default_factory=list)
    skipped: int = 0

    def add(
        self, image: Path, results: Sequence[Result], marks: Sequence[Mark | None] = ()
    ) -> None:
        """Add an image with each model's result, up to LIMIT images. Raises ImageError.

        `marks`: whether each result is right, where there is ground truth.
        """
        if len(self.tiles) >= LIMIT:
            self.skipped += 1
            return
        pixels = read_image(image, reduction=partial(reduction, FRAME))
        name = _cut(_ascii(image.name), FRAME.width)
        known = tuple(filter(None, marks))
        self.tiles.append(Tile(_shrunk(pixels), name, _answers(results), disagree(results), known))

    def png(self) -> bytes:
        """Return the contact sheet as an encoded PNG."""
        rows = [self.tiles[i : i + COLUMNS] for i in range(0, len(self.tiles), COLUMNS)]
        across = max(1, min(COLUMNS, len(self.tiles)))
        width = 2 * MARGIN + across * (CARD_WIDTH + GUTTER) - GUTTER
        marked = any(tile.marks for tile in self.tiles)
        strips = [_head(self.titles, width, marked), *(_strip(row, width) for row in rows)]
        canvas = np.concatenate(strips)
        return cv2.imencode(".png", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))[1].tobytes()


def _answers(results: Sequence[Result]) -> list[Caption]:
    """Return several classes of a single model, or the best class of each model."""
    if len(results) > 1:
        return [_answer(i, result.best, result.unknown) for i, result in enumerate(results)]
    (result,) = results
    named = result.predictions[:NAMED] or (result.best,)
    return [_answer(0, prediction, result.unknown) for prediction in named]


def _answer(model: int, prediction: Prediction, unknown: bool) -> Caption:
    name = prediction.name.replace("_", " ") + (" (unknown)" if unknown else "")
    room = FRAME.width - BAR_WIDTH - PERCENT_WIDTH
    return Caption(HUES[model % len(HUES)], prediction.probability, _wrap(_ascii(name), room))


def _head(titles: Sequence[str], width: int, marked: bool) -> Pixels:
    """Return the legend: a chip of each model's colour and its file, and what the strips mean."""
    chips = [(HUES[i % len(HUES)], title) for i, title in enumerate(titles)]
    if marked:
        chips += [(RIGHT, "right"), (ALARM, "wrong" if len(titles) == 1 else "a model is wrong")]
    elif len(titles) > 1:
        chips.append((ALARM, "the models disagree"))
    strip = _filled(MARGIN + LINE * len(chips) + LINE // 2, width, PAPER)
    for i, (hue, title) in enumerate(chips):
        top = MARGIN + LINE * i
        _box(strip, (MARGIN, top - 10), (12, 12), hue)
        _text(strip, (MARGIN + 22, top), _cut(_ascii(title), width - 2 * MARGIN - 22), INK)
    return strip


def _strip(tiles: Sequence[Tile], width: int) -> Pixels:
    height = max(tile.height for tile in tiles)
    strip = _filled(height + GUTTER, width, PAPER)
    for i, tile in enumerate(tiles):
        _card(strip[:height, MARGIN + i * (CARD_WIDTH + GUTTER) :][:, :CARD_WIDTH], tile)
    return strip


def _card(canvas: Pixels, tile: Tile) -> None:
    canvas[:] = CARD
    if tile.strip:
        canvas[:4] = tile.strip
    frame = canvas[INSET : INSET + FRAME.height, INSET : INSET + FRAME.width]
    frame[:] = RAIL
    height, width = tile.pixels.shape[:2]
    top, left = (FRAME.height - height) // 2, (FRAME.width - width) // 2
    frame[top : top + height, left : left + width] = tile.pixels
    base = INSET + FRAME.height + LINE
    _text(canvas, (INSET, base), tile.name, FAINT)
    if tile.marks:
        base += LINE
        verdict = _cut(_ascii(tile.verdict.replace("_", " ")), FRAME.width)
        _text(canvas, (INSET, base), verdict, tile.strip or INK)
    base += LINE + LINE // 4
    for answer in tile.answers:
        _draw(canvas, base, answer)
        base += LINE * len(answer.lines)


def _draw(canvas: Pixels, base: int, answer: Caption) -> None:
    """Draw the bar, the percentage and the name; `base` is the baseline of the first line."""
    corner = (INSET, base - BAR_HEIGHT)
    _box(canvas, corner, (BAR_WIDTH, BAR_HEIGHT), RAIL)
    _box(canvas, corner, (round(BAR_WIDTH * answer.probability), BAR_HEIGHT), answer.hue)
    share = percent(answer.probability, 0)
    right = INSET + BAR_WIDTH + PERCENT_WIDTH - 8
    _text(canvas, (right - _width(share), base), share, INK)
    for i, line in enumerate(answer.lines):
        _text(canvas, (right + 8, base + LINE * i), line, INK)


def _shrunk(pixels: Pixels) -> Pixels:
    scale = min(FRAME.height / pixels.shape[0], FRAME.width / pixels.shape[1], 1.0)
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return resize(pixels, height, width, FRAME.resize)


def _wrap(text: str, width: int) -> list[str]:
    """Break `text` into at most NAME_LINES lines of `width`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = lines[:NAME_LINES]
    kept[-1] += "..." * (len(lines) > NAME_LINES)
    return [_cut(line, width) for line in kept]


def _cut(text: str, width: int) -> str:
    """Return `text`, its end replaced by dots when it is wider than `width`."""
    if _width(text) <= width:
        return text
    while text and _width(text + "...") > width:
        text = text[:-1]
    return text.rstrip(" .,") + "..."


def _ascii(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def _width(text: str) -> int:
    return int(cv2.getTextSize(text, FONT, SCALE, 1)[0][0])


def _text(canvas: Pixels, start: tuple[int, int], text: str, colour: Colour) -> None:
    # putText needs contiguous memory, which a slice of a slice isn't.
    drawn = np.ascontiguousarray(canvas)
    cv2.putText(drawn, text, start, FONT, SCALE, colour, 1, cv2.LINE_AA)
    canvas[:] = drawn


def _box(canvas: Pixels, at: tuple[int, int], size: tuple[int, int], colour: Colour) -> None:
    (x, y), (width, height) = at, size
    canvas[y : y + height, x : x + width] = colour


def _filled(height: int, width: int, colour: Colour) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)
