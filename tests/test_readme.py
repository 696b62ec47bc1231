"""Every command and every Python example of the README runs, in order, as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kedge_convert.toolkit import require
from kedge_models.demo import pictograms

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
PHOTOS = 40
CLASSES = ("arrow", "fish", "star")


def commands() -> list[str]:
    """Return the lines of the README's shell blocks that call kedge, without their comments."""
    lines = [line for kind, text in BLOCKS if kind == "" for line in text.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith("kedge ")]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Return a folder with what the README's reader has: a model, photos, a picture."""
    folder = tmp_path_factory.mktemp("desk")
    model = shared / "data/models/mobilenet_v2_1.0_224.keras"
    (folder / "mobilenet.keras").symlink_to(model.resolve())
    (folder / "photos").mkdir()
    photos = sorted((shared / "data/images").iterdir())
    for photo in photos[:: len(photos) // PHOTOS]:
        (folder / "photos" / photo.name).symlink_to(photo.resolve())
    (folder / "kitchen.jpg").symlink_to(photos[0].resolve())
    flowers(folder)
    return folder


def flowers(folder: Path) -> None:
    """Write images in one folder a class, and a model that was trained on them, as people do."""
    for path in pictograms.write(folder / "all", 60 * len(pictograms.NAMES), seed=0):
        name = path.name.partition("_")[0]
        if name in CLASSES:
            (folder / "flowers" / name).mkdir(parents=True, exist_ok=True)
            path.rename(folder / "flowers" / name / path.name)
    keras = require("keras")
    keras.utils.set_random_seed(0)
    data = keras.utils.image_dataset_from_directory(
        folder / "flowers", image_size=(64, 64), batch_size=24, seed=1, verbose=False
    )
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.RandomFlip(),
            layers.Rescaling(1 / 255),
            layers.Conv2D(12, 5, strides=2, activation="relu"),
            layers.Conv2D(24, 3, strides=2, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(len(CLASSES), activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(data, epochs=40, shuffle=False, verbose=0)
    model.save(folder / "flowers.keras")


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order(desk: Path) -> None:
    found = commands()
    assert len(found) >= 4
    for line in found:
        ended = run([sys.executable, "-m", "kedge_runtime.cli", *shlex.split(line)[1:]], desk)
        # 3: the desk has few photos
        allowed = (0, 3) if line.startswith(("kedge drift", "kedge fit-input")) else (0,)
        assert ended.returncode in allowed, f"{line}\n{ended.stdout}\n{ended.stderr}"


def test_the_targets_of_the_readme_are_in_the_makefile() -> None:
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        ended = run(["make", "--dry-run", target], ROOT)
        assert ended.returncode == 0, ended.stderr


def test_the_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_python_example_of_the_readme_answers(demo_artefacts: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "demo-out").symlink_to(demo_artefacts)
    (example,) = [text for kind, text in BLOCKS if kind == "python"]
    ended = run([sys.executable, "-c", example], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[0] == "star"


def test_the_map_of_the_code_names_what_is_there() -> None:
    (text,) = [text for _, text in BLOCKS if text.startswith("runtime/")]
    folders = [line.split()[0] for line in text.splitlines()]
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
