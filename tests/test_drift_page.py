"""`kedge drift --report`: the page says what the JSON of the same run says."""

import html.parser
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import drift_references
from conftest import Run
from kedge_convert.matrix import html as build_page
from kedge_convert.matrix.plots import reliability
from kedge_runtime.artefact.contract import Label
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.drift.gates import share
from kedge_runtime.drift.report import Calibrations, number
from kedge_runtime.output import percent
from kedge_runtime.records import decode

COUNT = 60
NAMES = ("<b>oak</b>", "beech & co", "100 % `elm`", "ash")


class Reader(html.parser.HTMLParser):
    """Reads the rows of all tables as texts, and the text of the whole page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.text = ""
        self._hidden = self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden = tag in ("style", "title")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        if not self._hidden:
            self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data.strip()

    def row(self, name: str, width: int) -> list[str]:
        """Return the cells beside a name."""
        (found,) = (row for row in self.rows if row[0] == name and len(row) == width)
        return found[1:]


@dataclass(frozen=True)
class Ran:
    page: str
    read: Reader
    drift: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "photos").mkdir()
    drift_references.write_photos(folder / "photos", COUNT)
    labels = tuple(Label(f"n{i}", name) for i, name in enumerate(NAMES))
    path = folder / "trees.tflite"
    drift_references.resealed(artefacts / "tiny.tflite", path, labels=labels)
    drift_references.write_for(path, folder / "photos", folder / "near.npz", 0.4)
    classifier = Classifier.open(path)
    names = sorted(p.relative_to(folder / "photos") for p in (folder / "photos").rglob("*.png"))
    best = [classifier(folder / "photos" / name).best.index for name in names]
    rows = [
        f"{name},{k if i % 5 else (k + 1) % 4}"
        for i, (name, k) in enumerate(zip(names, best, strict=True))
    ]
    (folder / "truth.csv").write_text("\n".join([*rows, f"{drift_references.BROKEN},0"]))
    return folder


@pytest.fixture
def ran(kedge: Run, folder: Path, tmp_path: Path) -> Ran:
    return _run(kedge, folder, tmp_path, "--truth", folder / "truth.csv")


def _run(kedge: Run, folder: Path, place: Path, *words: object) -> Ran:
    page = place / "page.html"
    first = ["drift", folder / "trees.tflite", "--images", folder / "photos"]
    first += ["--against", folder / "near.npz", "--report", page, "--json"]
    code, said, error = kedge(*first, *words)
    assert code in (0, 1, 3), error
    assert f"wrote {page}" in error
    text = page.read_text(encoding="utf-8")
    return Ran(text, Reader(text), json.loads(said)["drifts"][0], said)


def test_figures_of_both_sides_are_those_of_the_json(ran: Ran) -> None:
    top1, drop = ran.drift["top1"], ran.drift["top1"]["drop"]
    reference, artefact, remark = ran.read.row("top-1 accuracy", 4)
    assert (reference, artefact) == (percent(top1["reference"]), percent(top1["artefact"]))
    assert remark.endswith(f"{number(drop['low'])} to {number(drop['high'])}")
    assert ran.read.row("same answer", 4)[1] == percent(ran.drift["agreement"]["value"])
    errors = [ran.drift["calibration"][side]["ece"] for side in ("reference", "artefact")]
    assert ran.read.row("calibration error", 4)[:2] == list(map(percent, errors))


def test_classes_thresholds_and_confusions_are_those_of_the_json(ran: Ran) -> None:
    for each in ran.drift["per_class"]["classes"]:
        right = [percent(each[side] / each["images"]) for side in ("reference", "artefact")]
        expected = [str(each["images"]), *right, str(each["lost"]), str(each["gained"])]
        assert ran.read.row(each["name"], 6) == expected
    coverage = ran.drift["coverage"]
    shown = []
    for side in ("reference", "artefact"):
        (point,) = (point for point in coverage[side] if point["threshold"] == 0.5)
        known = percent(point["right"] / point["answered"])
        shown.append(f"{percent(point['answered'] / COUNT)}, {known} right")
    assert ran.read.row("50 %", 3) == shown
    confusion = ran.drift["confusion"]
    heat = [row for row in ran.read.rows if len(row) == 5 and row[0] in NAMES]
    matrices = [*confusion["reference"], *confusion["artefact"]]
    assert [row[1:] for row in heat] == [[str(n) for n in row] for row in matrices]
    assert sum(map(sum, confusion["artefact"])) == COUNT


def test_the_page_has_a_date_and_names_as_they_are(ran: Ran) -> None:
    assert re.search(r"\d{1,2} [A-Z][a-z]+ 20\d\d, \d\d:\d\d UTC", ran.read.text)
    assert not {"b", "script", "link", "iframe"} & {*ran.read.tags}
    assert all(name in ran.read.text for name in NAMES)
    # The only backticks are a label's.
    assert "`" not in ran.read.text.replace("`elm`", "")
    assert not re.search(r"https?://", ran.page.replace("http://www.w3.org/", ""))
    assert "These 60 images can hold --min-agreement" in ran.read.text


def test_without_ground_truth_the_page_compares_answers(
    kedge: Run, folder: Path, tmp_path: Path
) -> None:
    ran = _run(kedge, folder, tmp_path, "--truth", "none")
    confusion = ran.drift["confusion"]
    assert (confusion["by"], confusion["reference"]) == ("reference", None)
    heat = [row for row in ran.read.rows if len(row) == 5 and row[0] in NAMES]
    assert [row[1:] for row in heat] == [[str(n) for n in row] for row in confusion["artefact"]]
    assert "Rows: the float model's answer" in ran.read.text
    assert not any(row[0] == "top-1 accuracy" for row in ran.read.rows if row)


def test_intervals_are_drawn_with_their_figures(ran: Ran) -> None:
    found = decode(Calibrations, ran.drift["calibration"], "calibration")
    root = ElementTree.fromstring(reliability(found))
    strokes = [line for line in root.iter("polyline") if "interval" in str(line.get("class"))]
    bins = [b for side in (found.reference, found.artefact) for b in side.bins if b.images]
    assert len(strokes) == len(bins) > 2
    plots = re.findall(r"<svg.*?</svg>", ran.page, flags=re.DOTALL)
    first = ElementTree.fromstring(plots[0])
    whisker, *ends = (e for e in first.iter("polyline") if e.get("class") == "interval")
    tops = [float(point.split(",")[1]) for point in str(whisker.get("points")).split()]
    ticks = {t.text: float(t.get("y", "")) - 4 for t in first.iter("text") if "%" in str(t.text)}
    levels = sorted(float(str(text).rstrip(" %")) / 100 for text in ticks)
    pixels = [ticks[f"{100 * level:.4g} %"] for level in (levels[0], levels[-1])]
    scale = (levels[-1] - levels[0]) / (pixels[1] - pixels[0])
    low, high = (levels[0] + (y - pixels[0]) * scale for y in tops)
    pairs = ran.drift["top1"]["pairs"]
    expected = share(pairs["both"] + pairs["gained"], COUNT)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.005)
    assert len(ends) == 2
    # One image is at most a twentieth of the height.
    assert levels[-1] - levels[0] >= 0.2 - 1e-9


def test_a_page_that_cannot_be_written_is_refused_before_the_work(
    kedge: Run, folder: Path, tmp_path: Path
) -> None:
    words = ["drift", folder / "trees.tflite", "--images", folder / "photos"]
    words += ["--against", folder / "near.npz", "--report", tmp_path / "page.pdf"]
    code, _, error = kedge(*words)
    assert (code, len(error.splitlines())) == (2, 1)
    assert "--report" in error
    assert ".html" in error


def test_a_date_in_words() -> None:
    assert build_page.date_of("2026-03-01T07:05:00+00:00") == "1 March 2026, 07:05 UTC"
    assert build_page.date_of("") == ""
