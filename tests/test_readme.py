"""The README, read as a stranger reads it: every block runs in order, as it stands there."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kedge_convert.toolkit import require
from kedge_models.demo import pictograms

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
CLASSES = ("arrow", "fish", "star")
LINES = 115

# What installs something, and what runs the same steps.
INSTALLS = {
    "python3 -m venv": "make: the environment that this test runs in",
    "pip install '.[convert]'": "make: .venv/.convert",
    "pip wheel --no-deps": "the fixture `desk`, without the network",
    "pip install keras_kedge-": "tests/test_arm64.py, with the wheel",
}
# What Keras would download, in its own cache.
WEIGHTS = "models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160_no_top.h5"
PROGRAMS = {
    "kedge": f'exec {sys.executable} -m kedge_runtime "$@"',
    "python": f'exec {sys.executable} "$@"',
    "scp": 'cp "${@:1:$#-1}" ../pi',
}


def steps() -> Iterator[tuple[str, str]]:
    """Yield (language, text): each line of a shell block without its comment, and other blocks."""
    for language, text in BLOCKS:
        if language == "sh":
            for line in text.splitlines():
                yield language, re.sub(r"\s+# .*", "", line)
        else:
            yield language, text


@pytest.fixture
def desk(tmp_path: Path, shared: Path) -> Path:
    """Return a folder with what the reader has: a clone's examples, images, and a Pi beside it."""
    folder, pi = tmp_path / "desk", tmp_path / "pi"
    for name, count, seed in (("flowers", 60, 0), ("flowers-test", 60, 1)):
        images(folder / name, count, seed)
    images(pi / "photos", 4, 2)
    first = next((pi / "photos").rglob("*.jpg"))
    first.rename(pi / "photos" / "rose.jpg")
    (folder / "examples").symlink_to(ROOT / "examples")
    base(shared, tmp_path / "keras" / WEIGHTS)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def images(folder: Path, count: int, seed: int) -> None:
    """Write `count` drawn images of each class into one folder a class."""
    for path in pictograms.write(folder, count * len(pictograms.NAMES), seed):
        name = path.name.partition("_")[0]
        if name in CLASSES:
            (folder / name).mkdir(exist_ok=True)
            path.rename(folder / name / path.name)
        else:
            path.unlink()


def base(shared: Path, path: Path) -> None:
    """Save MobileNetV2 without its top, with ImageNet's weights, as Keras distributes it."""
    keras = require("keras")
    whole = keras.models.load_model(shared / "data/models/mobilenet_v2_1.0_224.keras")
    model = keras.applications.MobileNetV2((160, 160, 3), include_top=False, weights=None)
    model.set_weights(whole.get_weights()[: len(model.get_weights())])
    path.parent.mkdir(parents=True)
    model.save(path)


@pytest.mark.slow
def test_the_blocks_of_the_readme_run_in_order(desk: Path) -> None:
    here, ran = desk, 0
    for language, text in steps():
        if language == "python":
            run([sys.executable, "-c", text], here)
        elif not text.startswith(tuple(INSTALLS)):
            run(["bash", "-c", text], here)
            here = desk.parent / "pi" if text.startswith("scp ") else here
            ran += 1
    assert ran >= 8
    for written in ("sheet.png", "reference.npz", "out/flowers.int8.tflite", "out/report.html"):
        assert (desk / written).is_file(), written


def run(command: list[str], folder: Path) -> None:
    """Run a step with the reader's programs first on the path. A drift may be inconclusive."""
    around = {
        **os.environ,
        "PATH": f"{folder.parent / 'bin'}:/usr/bin:/bin",
        "KERAS_HOME": str(folder.parent / "keras"),
    }
    done = subprocess.run(
        command, cwd=folder, env=around, capture_output=True, text=True, check=False
    )
    allowed = (0, 3) if "kedge drift" in command[-1] else (0,)
    assert done.returncode in allowed, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def test_every_line_that_installs_is_covered_elsewhere() -> None:
    lines = [text for language, text in steps() if language == "sh"]
    for start in INSTALLS:
        assert any(line.startswith(start) for line in lines), start


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= LINES


def test_the_targets_of_the_readme_are_in_the_makefile() -> None:
    targets = re.findall(r"`make (\w+)`", README)
    assert targets
    for target in targets:
        ended = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    """The rows of the committed measurement, in the README's words."""
    name = "quantisation-mobilenet_0.25_224-amd-epyc-2-cores.md"
    table = (ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8")
    rows = {}
    for line in table.partition("## Seed 0")[0].splitlines():
        way, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[way] = cells
    stock, ours = rows["stock TFLiteConverter tflite"], rows["kedge tflite"]
    budget = rows["kedge with budget tflite"]
    for cells in (stock, ours, budget):
        assert f"{100 * float(cells[2]):.1f} %" in README
    assert f"loses {float(stock[1].split()[0]):.1f} points" in README
    assert "loses 0.0 (-1.3 to 1.3)" in README and ours[1] == "+0.0 (-1.3 to +1.3)"
    assert f"{float(budget[7]):.2f} times the size" in README
    files = (ROOT / "docs" / "model-files.md").read_text(encoding="utf-8")
    assert "129 files: 129 passed." in files and "129 of 129 files" in README


def test_the_minutes_of_the_readme_are_those_of_the_small_network() -> None:
    page = (ROOT / "benchmarks" / "results" / "newcomers.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    begin = next(at for at, row in enumerate(rows) if row[0].startswith("small CNN"))
    minutes = [float(row[3]) for row in rows[begin : begin + 5]]
    assert max(minutes[:2]) < 3 and max(minutes[2:]) < 1, minutes
    assert "train and convert in about three minutes each" in README
    assert "Classifying and measuring take under one" in README


def test_the_links_and_images_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert len([target for target in targets if target.endswith(".png")]) == 2
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_map_of_the_code_names_what_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```\n(runtime/.*?)```", page, flags=re.DOTALL)
    folders = [line.split()[0] for line in text.splitlines()]
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
