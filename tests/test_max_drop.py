"""`kedge convert --max-drop` where folders tell the true classes: accuracy is what counts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Run
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_runtime.image.decode import read_bytes
from kedge_runtime.image.input_options import InputOptions

TF = "--preprocess imagenet --normalisation tf"

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow
NAMES = ("one", "two", "three", "four", "five")
Named = Callable[[int], str]


@pytest.fixture(scope="module")
def answers(tiny_model: Path, pictures: Path) -> dict[Path, int]:
    """Return the float original's answer to each picture."""
    from kedge_convert.images import tensors

    labels = tiny_model.with_name("labels.txt")
    source = load_source(
        SourceRequest(str(tiny_model), pixels=InputOptions("imagenet", "tf"), labels=str(labels))
    )
    photos = sorted(pictures.iterdir())
    logits = source.logits(tensors(photos, source.input))
    return dict(zip(photos, map(int, np.argmax(logits, axis=1)), strict=True))


def sorted_into(folder: Path, answers: dict[Path, int], named: Named) -> Path:
    """Copy the pictures into folders called by the class that `named` gives their answer."""
    for photo, answer in answers.items():
        place = folder / named(answer) / photo.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(read_bytes(photo))
    return folder


def converted(kedge: Run, tiny_model: Path, folder: Path, out: Path) -> tuple[int, dict[str, Any]]:
    labels = tiny_model.with_name("labels.txt")
    words = f"{TF} --calibrate-count 25 --check-count 15 --to tflite:int8 --json"
    options = ["--labels", labels, "--calibrate", folder, "--out", out, "--max-drop", "2pp"]
    # What is asked is the drop alone: random weights flip answers.
    options += ["--min-agreement", "0"]
    code, said, _ = kedge("convert", tiny_model, *words.split(), *options)
    (artefact,) = json.loads(said)["artefacts"]
    return code, artefact


def test_who_was_never_right_has_nothing_to_lose(
    kedge: Run, tiny_model: Path, answers: dict[Path, int], tmp_path: Path
) -> None:
    """Plain int8 will do, whatever it answers otherwise."""
    wrong = sorted_into(tmp_path / "wrong", answers, lambda answer: NAMES[(answer + 1) % 5])
    code, artefact = converted(kedge, tiny_model, wrong, tmp_path / "out")
    assert (code, Path(artefact["path"]).name) == (0, "tiny.int8.tflite")
    assert -1 <= artefact["parity"]["drop"] <= 0


def test_who_was_always_right_loses_with_every_answer_that_differs(
    kedge: Run, tiny_model: Path, answers: dict[Path, int], tmp_path: Path
) -> None:
    """Only what answers as the original does is released: one of fifteen would be 7 points."""
    right = sorted_into(tmp_path / "right", answers, lambda answer: NAMES[answer])
    code, artefact = converted(kedge, tiny_model, right, tmp_path / "out")
    name, parity = Path(artefact["path"]).name, artefact["parity"]
    assert parity["drop"] == pytest.approx(1 - parity["agreement"])
    assert (code, parity["drop"]) == (0, 0.0)
    # No forecast is so sure of random weights in int8.
    assert name in {"tiny.mixed.tflite", "tiny.float16.tflite"}


def test_where_nothing_is_prepared_nothing_is_searched_and_that_is_said(
    kedge: Run, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    labels = tiny_model.with_name("labels.txt")
    words = f"{TF} --calibrate-count 25 --check-count 15 --to tflite:int8 --effort fast"
    words += " --max-logit-error 1e-6"  # missed for certain: all 15 answers may agree
    places = ["--labels", labels, "--calibrate", pictures, "--out", tmp_path / "out"]
    code, _, error = kedge("convert", tiny_model, *words.split(), *places, "--min-agreement", "1")
    assert code == 1
    assert "no mixed file is tried; an int8 file that misses becomes float16" in " ".join(
        error.split()
    )
