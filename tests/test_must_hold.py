"""The main job on a real model and real photos: what the project promises must hold."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import peak
from kedge_convert.targets import TARGETS

pytestmark = pytest.mark.slow

MADE = tuple(target for target in TARGETS if target.precision != "int16x8")
CHECKED = 50
PEAK_BYTES = 3e9
LIGHT_BYTES = 2e8  # TensorFlow alone takes three times that


class Held(NamedTuple):
    """One conversion of the real model: its artefacts by target, and what it took."""

    folder: Path
    artefacts: dict[str, dict[str, Any]]
    ran: peak.Ran


@pytest.fixture(scope="module")
def held(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Held:
    """Convert the real model in a process of its own.

    With a quarter of the usual pictures, for the time's sake, and without int16x8, which takes a
    third of it and is held on the demo: benchmarks/conversion.py takes all.
    """
    pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
    folder = tmp_path_factory.mktemp("must-hold")
    model = shared / "data" / "models" / "mobilenet_v2_1.0_224.keras"
    words = [
        "convert",
        str(model),
        "--card",
        "MobileNetV2",
        "--to",
        ",".join(map(str, MADE)),
        "--json",
        "--out",
        "out",
    ]
    calibrate = ["--calibrate", str(shared / "data" / "images")]
    calibrate += ["--calibrate-count", "40", "--check-count", str(CHECKED)]
    ran = peak.run([sys.executable, "-m", "kedge_runtime.cli", *words, *calibrate], folder)
    assert ran.code == 0, ran.stderr
    artefacts = {item["target"]: item for item in json.loads(ran.stdout)["artefacts"]}
    return Held(folder / "out", artefacts, ran)


def test_all_artefacts_and_nothing_else(held: Held) -> None:
    names = {Path(item["path"]).name for item in held.artefacts.values()}
    assert {path.name for path in held.folder.iterdir()} == names
    assert len(names) == len(MADE)
    assert all(item["parity"]["images"] == CHECKED for item in held.artefacts.values())


@pytest.mark.parametrize("target", ["tflite:float32", "onnx:float32"])
def test_float32_is_the_original(held: Held, target: str) -> None:
    parity = held.artefacts[target]["parity"]
    assert parity["agreement"] == 1.0
    assert parity["logit_max_error"] <= 1e-4


def test_int8_agrees_on_pictures_it_was_not_calibrated_with(held: Held) -> None:
    assert held.artefacts["tflite:int8"]["parity"]["agreement"] >= 0.94


def test_an_orange_is_an_orange_on_the_device_path(held: Held, shared: Path) -> None:
    (artefact,) = held.folder.glob("*.int8.tflite")
    photo = shared / "data" / "images" / "n07747607_orange.JPEG"
    command = [sys.executable, "-m", "kedge_runtime.cli", "classify", str(artefact), str(photo)]
    ran = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    (result,) = json.loads(ran.stdout)["results"]
    assert (result["predictions"][0]["id"], result["predictions"][0]["name"]) == (
        "n07747607",
        "orange",
    )


def test_memory_stays_below_three_gigabytes(held: Held) -> None:
    assert held.ran.children > LIGHT_BYTES
    assert held.ran.peak <= PEAK_BYTES


def test_the_command_itself_stays_light(held: Held) -> None:
    assert held.ran.parent <= LIGHT_BYTES
