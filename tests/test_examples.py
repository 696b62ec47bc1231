"""The examples run as they stand: the notebook's cells in order, and the two scripts."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import test_readme as readers
from kedge_models.demo import pictograms
from notebook_cells import as_python, code_cells

pytest.importorskip("ai_edge_litert")
EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "shapes.ipynb"
HELPERS = Path(__file__).parent / "helpers"
needs_converter = pytest.mark.skipif(
    not find_spec("tf2onnx"), reason="the converter needs keras-kedge[convert]"
)


def _run(folder: Path, *command: object) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder, with `kedge` on the path."""
    shim = folder / "bin" / "kedge"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m kedge_runtime "$@"\n')
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def _cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_the_notebook_is_saved_without_outputs() -> None:
    assert not [cell for cell in _cells() if cell.get("outputs") or cell.get("execution_count")]
    assert not [cell for cell in _cells() if cell["metadata"]]


def test_the_notebook_is_code_between_short_texts() -> None:
    texts = ["".join(cell["source"]) for cell in _cells() if cell["cell_type"] == "markdown"]
    assert max(len(text.split()) for text in texts) < 90
    assert not re.findall(r"https?://", NOTEBOOK.read_text(encoding="utf-8"))
    for cell in code_cells(NOTEBOOK):
        ast.parse(as_python(cell))


def test_a_command_of_a_cell_gets_its_names() -> None:
    assert as_python("!ls {X}\ny = 1") == "_shell(f'ls {X}')\ny = 1"


@needs_converter
def test_the_notebook_runs(tmp_path: Path) -> None:
    done = _run(tmp_path, HELPERS / "notebook_cells.py", NOTEBOOK)
    assert done.returncode == 0, done.stderr[-3000:]
    classifier, one, several, noise, report = map(json.loads, done.stdout.splitlines())
    head = "<Classifier 'shapes.int8.tflite': 96x96 int8, 5 classes, litert with "
    assert classifier["text"].startswith(head)
    assert one["text"].startswith("<Result 'star' ")
    assert "data:image/jpeg;base64," in one["html"]
    labels = [label for label, _ in ast.literal_eval(several["text"])]
    right = ["fish", "heart", "moon", "star", "umbrella"]
    assert sum(a == b for a, b in zip(labels, right, strict=True)) >= 4
    assert set(ast.literal_eval(noise["text"])) >= {"label", "unknown", "best", "predictions"}
    assert report["html"].lstrip().lower().startswith("<!doctype html>")
    assert "shapes" in report["html"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of one plain image for each class of the tiny models, and a broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in {"r": (0, 0, 255), "g": (0, 255, 0), "b": (255, 0, 0)}.items():
        cv2.imwrite(str(folder / f"{name}.png"), np.full((30, 40, 3), colour, np.uint8))
    (folder / "text.txt").write_text("no image")
    return folder


def test_a_folder_is_sorted(artefacts: Path, photos: Path, tmp_path: Path) -> None:
    done = _run(
        tmp_path,
        *("-W", "error", EXAMPLES / "classify_folder.py"),
        *(artefacts / "tiny.tflite", photos, "sorted"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = {str(path.relative_to(tmp_path)) for path in (tmp_path / "sorted").rglob("*.*")}
    assert found == {"sorted/red/r.png", "sorted/green/g.png", "sorted/blue/b.png"}
    head, *lines = done.stdout.splitlines()
    assert head.startswith("<Classifier 'tiny.tflite': 16x16 ")
    assert lines[-1].startswith("skipped: ")
    assert "text.txt" in lines[-1]


def test_a_missing_model_is_one_line(photos: Path, tmp_path: Path) -> None:
    done = _run(tmp_path, EXAMPLES / "classify_folder.py", "missing.tflite", photos, "sorted")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("missing.tflite: no such file")
    assert not (tmp_path / "sorted").exists()


@needs_converter
@pytest.mark.parametrize("start", ["weights", "from-scratch"])
def test_a_fine_tuned_model_converts(shared: Path, tmp_path: Path, start: str) -> None:
    """Both ways need no download."""
    words = ["--from-scratch"]
    if start == "weights":
        readers.base(shared, tmp_path / "weights" / "base.h5")
        words = ["--weights", "weights/base.h5"]
    drawn = pictograms.write(tmp_path / "drawn", 120, seed=3)
    for path in drawn:
        folder = tmp_path / "shapes" / path.stem.partition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder)
    script = EXAMPLES / "finetune.py"
    done = _run(tmp_path, script, "shapes", *words, "--epochs", "3", "--out", "s.keras")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "saved s.keras with the classes arrow, cross, fish" in done.stdout
    options = ["--preprocess", "image_dataset", "--calibrate", "shapes", "--to", "tflite:float32"]
    converted = _run(tmp_path, "-m", "kedge_runtime", "convert", "s.keras", *options)
    assert converted.returncode == 0, converted.stdout + converted.stderr[-3000:]
    assert (tmp_path / "out" / "s.float32.tflite").is_file()


@needs_converter
@pytest.mark.parametrize(("steps", "epochs"), [(1, 150), (3, 50), (8, 19), (30, 5), (1000, 5)])
def test_few_images_get_more_epochs(steps: int, epochs: int) -> None:
    script = runpy.run_path(str(EXAMPLES / "finetune.py"))
    assert script["epochs_for"](steps) == epochs
