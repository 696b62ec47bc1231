"""Results in Python and in notebooks: short in the shell, an image with bars on a page."""

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from kedge_runtime import Classifier, Prediction, Result, Rule

pytest.importorskip("ai_edge_litert")
RED = np.full((200, 400, 3), (255, 0, 0), np.uint8)
BEST = Prediction(3, "n1", "star", 0.9612)
OTHERS = tuple(Prediction(i, f"n{i}", f"name {i}", 0.01) for i in range(4))
RESULT = Result(BEST, (BEST, *OTHERS), 0.95, 0.1)

SHORT = [
    (BEST, "<Prediction 'star' 96.1%>"),
    (RESULT, "<Result 'star' 96.1%, 'name 0' 1.0%, 'name 1' 1.0%, 2 more>"),
    (replace(RESULT, predictions=(BEST,)), "<Result 'star' 96.1%>"),
    (replace(RESULT, unknown=True), "<Result unknown, best 'star' 96.1%>"),
]


@pytest.mark.parametrize(("value", "expected"), SHORT)
def test_a_repr_is_short(value: object, expected: str) -> None:
    assert repr(value) == expected


def test_a_repr_is_one_line_whatever_the_name() -> None:
    assert repr(replace(BEST, name="a\n\x1b[31m")) == "<Prediction 'a\\n\\x1b[31m' 96.1%>"


def test_a_dict_has_the_keys_of_the_command(artefacts: Path, tmp_path: Path) -> None:
    path, artefact = tmp_path / "red.png", artefacts / "tiny.tflite"
    path.write_bytes(cv2.imencode(".png", RED[..., ::-1])[1].tobytes())
    command = [sys.executable, "-m", "kedge_runtime", "classify", artefact, path, "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    (row,) = json.loads(done.stdout)["results"]
    of_python = json.loads(json.dumps(Classifier.open(artefact)(path).to_dict()))
    assert {"image": str(path), "artefact": str(artefact), **of_python} == row
    assert list(of_python) == list(row)[2:]


class _Page(HTMLParser):
    """The tags, the text and the attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text, self.values = list[str](), "", list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_a_notebook_shows_the_image_and_a_bar_for_each_class(artefacts: Path, colour: str) -> None:
    frame = RED if colour == "rgb" else np.ascontiguousarray(RED[..., ::-1])
    result = Classifier.open(artefacts / "tiny.tflite")(frame, colour=colour)  # type: ignore[call-overload]
    page = _Page(result._repr_html_())
    (source,) = (value for value in page.values if value.startswith("data:image/jpeg;base64,"))
    content = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
    shown = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
    assert shown is not None
    assert shown.shape == (80, 160, 3)
    assert np.abs(shown.astype(int) - (255, 0, 0)).max() < 5
    names = re.findall(r"[\d.]+% +(\w+)", page.text)
    assert names == [prediction.name for prediction in result.predictions]
    width = f"width:{result.best.probability:.1%};"
    assert sum(width in value for value in page.values) == 1


@pytest.mark.usefixtures("notebook")
def test_the_image_is_read_once_from_a_stream(artefacts: Path) -> None:
    file = io.BytesIO(cv2.imencode(".png", RED)[1].tobytes())
    file.seekable = lambda: False  # type: ignore[method-assign]
    assert Classifier.open(artefacts / "tiny.tflite")(file).thumbnail


@pytest.mark.usefixtures("notebook")
def test_a_thumbnail_changes_no_result(artefacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.open(artefacts / "tiny.tflite")
    shown = classifier(RED)
    monkeypatch.delitem(sys.modules, "IPython")
    plain = classifier(RED)
    assert shown == plain
    assert hash(shown) == hash(plain)
    assert shown.thumbnail
    assert plain.thumbnail is None
    assert "<img" not in plain._repr_html_()


def test_labels_are_text_and_nothing_is_fetched() -> None:
    evil = "<script src='https://example.org/x.js'>alert(1)</script>\"'&"
    bad = replace(RESULT, best=replace(BEST, name=evil), predictions=(replace(BEST, name=evil),))
    for result in (bad, replace(bad, unknown=True), replace(RESULT, thumbnail=b"jpeg")):
        page = _Page(result._repr_html_())
        assert set(page.tags) <= {"div", "b", "img"}
        assert not [value for value in page.values if "//" in value]
        assert not re.search(r"url\(|@import|(?<![-\w])color:", result._repr_html_())
    assert evil[:20] in _Page(bad._repr_html_()).text


def test_an_unknown_says_so(artefacts: Path) -> None:
    unsure = Classifier.open(artefacts / "tiny.tflite")(RED, rule=Rule(min_confidence=1.0))
    assert "unknown ; the most probable class is red" in _Page(unsure._repr_html_()).text


def test_a_bar_stays_in_its_rail() -> None:
    odd = replace(BEST, probability=1.5)
    assert "width:100.0%" in Result(odd, (odd,), 0, 0)._repr_html_()
