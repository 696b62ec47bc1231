"""The pages of docs/jobs: kedge takes each command, and the half on the device runs."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from conftest import Run
from foreign_files import WORDS
from kedge_runtime.artefact.confidence import SecondRule
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.identity import identity
from kedge_runtime.artefact.reseal import resealed, write_resealed
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.cli import kedge as program
from kedge_runtime.field.sketching import sketch_images
from served import BLUE, PALE, RED, write_video

pytest.importorskip("ai_edge_litert")

JOBS = Path(__file__).parent.parent / "docs" / "jobs"
PAGES = sorted(JOBS.glob("*.md"))
LINES = 95
COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0), "dark": (0, 0, 0)}
# What needs a network, or a service that goes on; tests of their own hold each.
ELSEWHERE = ("--mqtt", "--webhook", "--name", "--updates", "--state")
DEVICE = ("verify", "classify", "watch", "drift")


def commands(path: Path) -> list[list[str]]:
    """Return the words of each line of a page that calls kedge."""
    blocks = re.findall(r"```\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("kedge ")]


CASES = [(path.stem, words) for path in PAGES for words in commands(path)]


def test_there_are_three_short_pages() -> None:
    assert [path.stem for path in PAGES] == ["bird-feeder", "parcel-at-the-door", "sorting-line"]
    assert max(len(path.read_text().splitlines()) for path in PAGES) <= LINES


@pytest.mark.parametrize(("page", "words"), CASES, ids=lambda each: " ".join(each)[:60])
def test_kedge_takes_every_command_of_a_page(page: str, words: list[str]) -> None:
    command = program.get_command(click.Context(program), words[0])
    assert command is not None
    assert command.make_context(words[0], words[1:]).params


def device_half(path: Path) -> list[list[str]]:
    """Return the commands that a page runs on the device, with the files that were copied."""
    copied = [words for words in commands(path) if not any("out/" in word for word in words)]
    return [words for words in copied if words[0] in DEVICE]


def local(words: list[str]) -> list[str]:
    """Return a command that reads a video instead of a camera, without what needs a network."""
    kept, rest = list[str](), iter(words)
    for word in rest:
        if word in ELSEWHERE or word == "--key":
            next(rest)
        elif word == "--camera":
            kept += ["--video", "walk.avi"]
            next(rest)
        else:
            kept.append(word)
    return kept


@pytest.fixture
def device(
    models: dict[str, bytes],
    labels: Path,
    tmp_path: Path,
    kedge: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return a device's folder: images, a video, and artefacts under the names of the pages."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "last-week", "today"):
        _write_images(Path(folder), 30)
    _write_images(Path("labelled"), 240)
    write_video(Path("walk.avi"), [RED] * 3 + [PALE] * 3 + [BLUE] * 3)
    Path("tiny.tflite").write_bytes(models["tflite"])
    code, _, err = kedge("seal", "tiny.tflite", "--labels", labels, *WORDS, "--out", "base.tflite")
    assert (code, err) == (0, "")
    _sketch(Path("base.tflite"), Path("labelled"))
    code, _, err = kedge("calibrate", "base.tflite", "--images", "labelled")
    assert code == 0, err
    for name in ("demo.int8", "birds.int8", "door.int8", "parts.int8", "parts.float16"):
        shutil.copy("base.tflite", f"{name}.tflite")
    _pair(Path("parts.int8.tflite"), Path("parts.float16.tflite"))
    return tmp_path


def _write_images(folder: Path, count: int) -> None:
    """Write noisy images of the labels' colours, in a folder for each."""
    random = np.random.default_rng(0)
    for i in range(count):
        name, colour = list(COLOURS.items())[i % len(COLOURS)]
        pixels = np.clip(random.normal(colour, 60, (20, 20, 3)), 0, 255).astype(np.uint8)
        (folder / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name / f"{i:03}.png"), pixels)


def _sketch(path: Path, folder: Path) -> None:
    """Give an artefact the sketch that a conversion makes."""
    content, classifier = read_content(path), Classifier.open(path)
    plan = classifier.preprocessor
    fitted = [plan.fit(plan.read(image)) for image in sorted(folder.rglob("*.png"))]
    sketch = sketch_images(classifier, fitted, None)
    write_resealed(path, resealed(content, classifier.contract, sketch))


def _pair(first: Path, second: Path) -> None:
    """Give the first artefact a margin for the second one."""
    model = identity(read_content(second), read_artefact(second).contract)
    shares = (0.95, 0.9, 1.0), (0.5, 0.4, 0.6)
    rule = SecondRule(model, 0.5, 0.9, *shares, 200, ())
    content, classifier = read_content(first), Classifier.open(first)
    write_resealed(first, resealed(content, replace(classifier.contract, second=rule)))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_half_on_the_device_runs(device: Path, kedge: Run, path: Path) -> None:
    half = device_half(path)
    assert {words[0] for words in half} >= {"verify", "watch"}
    for words in half:
        code, out, err = kedge(*local(words))
        # An alarm of the field is 1, and a finding, no fault of the command.
        assert code in ((0, 1) if "--field" in words else (0,)), (words, err, out)
