"""What is missing is asked for once, at once, and the command that the message names works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import MODELS, Run
from kedge_convert.load.outline import outline
from kedge_convert.toolkit import require
from kedge_runtime.output import quiet

WITHOUT_TENSORFLOW = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('tensorflow', 'keras', 'tf_keras'):
            raise AssertionError(f'{name} is imported to ask')
sys.meta_path.insert(0, Refused())
from kedge_runtime.cli import main
main()
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models of every container, images in class folders, and labels."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    keras, folder = require("keras"), tmp_path_factory.mktemp("asking")
    keras.utils.set_random_seed(3)
    bare, scaled = (model(keras, scales) for scales in (False, True))
    bare.save(folder / "bare.keras")
    scaled.save(folder / "scaled.keras")
    with quiet():  # Keras says that HDF5 is legacy
        bare.save(folder / "bare.h5")
    bare.export(str(folder / "graph"), verbose=False)
    rng = np.random.default_rng(0)
    for name in ("blue", "red", "white"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(6):
            noise = rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(noise).save(folder / "photos" / name / f"{i}.png")
    (folder / "labels.txt").write_text("blue\nred\nwhite\n")
    (folder / "few").mkdir()
    return folder


def model(keras: Any, scales: bool) -> Any:
    layers = keras.layers
    begin = [layers.Rescaling(1 / 255)] if scales else []
    rest = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    return keras.Sequential([keras.Input((16, 16, 3)), *begin, *rest])


# What is given -> what is asked for, all of it and nothing else.
ASKED = {
    "bare.keras": {"--preprocess", "--normalisation", "--labels", "--calibrate"},
    "bare.h5": {"--preprocess", "--normalisation", "--labels", "--calibrate"},
    "scaled.keras": {"--preprocess", "--labels", "--calibrate"},
    "graph": {"--preprocess", "--calibrate"},
    "bare.keras --preprocess image_dataset --labels labels.txt": {
        "--normalisation",
        "--calibrate",
    },
    "bare.keras --calibrate photos": {"--preprocess", "--normalisation"},
}


@pytest.mark.parametrize("words", ASKED)
def test_all_that_is_missing_is_asked_for_without_tensorflow(desk: Path, words: str) -> None:
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, "convert", *shlex.split(words)]
    ran = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    told = ran.stderr.partition("Then run, for example: ")[2].split()
    given = set(re.findall(r"--[a-z]+", words))
    assert {word for word in told if word.startswith("--")} - given == ASKED[words]


def test_the_command_that_a_message_names_converts(
    desk: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    words = ["convert", "bare.keras", "--to", "tflite:float32", "--out", "out"]
    code, _, err = kedge(*words)
    assert code == 2
    told = shlex.split(err.partition("Then run, for example: kedge ")[2])
    code, _, err = kedge(*told)
    assert code == 0, err
    assert "input: 16x16 rgb, tf_bilinear, stretch, no EXIF, x / 255 (--preprocess" in err


WRONG = {
    "absent.keras --calibrate absent": "absent.keras: no such file",
    "bare.keras --calibrate few": "--calibrate: few: no images in it",
    "bare.keras --calibrate photos --labels absent.txt": "label file absent.txt",
    "bare.keras --calibrate photos --card nonsense": "no model called 'nonsense'",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_files_and_options_tell_comes_before_tensorflow(desk: Path, words: str) -> None:
    assert WRONG[words] in refused(words, desk)


# Of the committed models: what is given -> what the line says.
IN_VAIN = {
    "legacy/sequential.weights.h5": "holds weights without a model: give model.json",
    "legacy/sequential_by_order.h5": "holds weights without a model: give model.json",
    "keras2/teachable-2.15.json": "an architecture without weights: give --weights FILE",
    "keras2/teachable-2.15.json --weights absent.h5": "--weights: absent.h5: no such file",
    "hub/vit_tiny.keras --weights none": "--weights: hub/vit_tiny.keras has its own weights",
    "hub/vit_tiny.keras --signature serve": "--signature: hub/vit_tiny.keras is no SavedModel",
    "MobileNetV2 --card MobileNetV2": "--card MobileNetV2: MobileNetV2 is its own card",
    "demo --calibrate-count 2": "--calibrate-count 2: too few for tflite:int8, allowed are 3",
    "''": "the argument after convert is empty: give a value, or leave it out",
    "demo --labels ''": "--labels is empty: give a value, or leave it out",
    "demo --normalisation ''": "--normalisation is empty: give a value, or leave it out",
}


@pytest.mark.parametrize("words", IN_VAIN)
def test_what_can_not_be_converted_is_told_before_tensorflow(tmp_path: Path, words: str) -> None:
    pytest.importorskip("h5py", reason="the converter needs keras-kedge[convert]")
    assert IN_VAIN[words] in refused(f"{words} --out {tmp_path}/out", MODELS)


def refused(words: str, folder: Path) -> str:
    """Return the one line by which convert refuses words, without TensorFlow."""
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, "convert", *shlex.split(words)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
    return ran.stderr


def test_an_outline_tells_what_the_file_holds(desk: Path) -> None:
    bare, scaled = (outline(desk / name) for name in ("bare.keras", "scaled.keras"))
    assert (bare.shape, bare.outputs, bare.bare, bare.sized) == ((16, 16, 3), 3, True, False)
    assert (scaled.outputs, scaled.bare) == (3, False)
    assert outline(desk / "labels.txt").outputs is None
