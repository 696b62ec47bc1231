"""The wheel built here, on an emulated arm64 machine: it answers as x86-64 does, to the byte.

Skipped, with the reason, only where tools/emulated_root.py says that emulation can't be had.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import emulated_machines
import emulated_root
import photo_answers
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.checks.verify import CHECKS, TOLERANCES
from kedge_runtime.drift.statistics import sqnr
from kedge_runtime.image.preprocessing import dequantise

pytestmark = pytest.mark.arm64

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "emulated_root.py"
SAMPLES = ROOT / "models" / "kedge_models" / "demo" / "samples"
PHOTOS = 50
# The Raspberry Pi 4's processor, and the Pi 5's, for which XNNPACK has dot product kernels.
PI_4, PI_5 = "cortex-a72", "cortex-a76"


class Emulated(NamedTuple):
    """The Python of an emulated machine, and how to call it."""

    python: str

    def run(self, *words: object, cpu: str = PI_4) -> str:
        """Run it and return its stdout; it must end with exit code 0."""
        return run(self.python, *words, QEMU_CPU=cpu)

    def kedge(self, *words: object, cpu: str = PI_4) -> Any:
        """Run a command of kedge and return its JSON."""
        return json.loads(self.run("-m", "kedge_runtime.cli", *words, "--json", cpu=cpu))


def run(*words: object, **environment: str) -> str:
    command = list(map(str, words))
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(TOOL), *map(str, words)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    """Return an emulated machine with kedge, or skip with the reason."""
    done = make("arm64", tmp_path_factory.mktemp("arm64"))
    if done.returncode == os.EX_UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return Emulated(done.stdout.strip())


DEFAULTS = """
[defaults]
targets = ["tflite:int8"]
[options]
effort = "fast"
calibrate_count = 20
check_count = 20
"""


def build(folder: Path, **model: str) -> Path:
    """Return an int8 artefact; an unchanged converter has it from the cache of `kedge build`."""
    pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
    lines = [f"{key} = {json.dumps(value)}" for key, value in model.items()]
    config = folder / "kedge.toml"
    config.write_text("\n".join([DEFAULTS, "[[model]]", *lines]))
    options = ("--cache", emulated_root.cache_folder())
    run(sys.executable, "-m", "kedge_runtime.cli", "build", config, *options)
    return folder / "out" / f"{model['name']}.int8.tflite"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the demo as int8."""
    return build(tmp_path_factory.mktemp("demo"), name="demo")


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Return the real MobileNetV2 as int8."""
    return build(
        tmp_path_factory.mktemp("mobilenet"),
        name="mobilenet",
        source=str(shared / "data/models/mobilenet_v2_1.0_224.keras"),
        card="MobileNetV2",
        calibrate=str(shared / "data/images"),
    )


def test_the_doctor_finds_what_the_wheel_needs(arm64: Emulated) -> None:
    found = arm64.kedge("doctor")
    assert found["runs"] == {"tflite": ["litert"], "onnx": ["opencv"]}
    (kedge,) = [row for row in found["findings"] if row["name"] == "kedge"]
    assert kedge["detail"].endswith("bookworm), aarch64")
    assert "problem" not in {row["state"] for row in found["findings"]}


def test_the_demo_is_verified(arm64: Emulated, demo: Path) -> None:
    _check_stages(arm64.kedge("verify", demo, cpu=PI_4))


@pytest.mark.slow
def test_a_real_network_is_verified(arm64: Emulated, mobilenet: Path) -> None:
    _check_stages(arm64.kedge("verify", mobilenet, cpu=PI_5))


def _check_stages(verdict: dict[str, Any]) -> None:
    assert verdict["passed"] is True
    assert [stage["name"] for stage in verdict["stages"]] == ["file", *CHECKS]
    details = {stage["name"]: stage["detail"] for stage in verdict["stages"]}
    assert details["exact"].startswith("reference kernels: ")


def test_the_demo_names_its_samples(arm64: Emulated, demo: Path) -> None:
    results = arm64.kedge("classify", demo, SAMPLES)["results"]
    assert len(results) == len(list(SAMPLES.iterdir()))
    for result in results:
        assert Path(result["image"]).stem.rpartition("_")[0] == result["best"]["name"]


def test_an_orange_is_an_orange(arm64: Emulated, mobilenet: Path, shared: Path) -> None:
    photo = shared / "data" / "images" / "n07747607_orange.JPEG"
    (result,) = arm64.kedge("classify", mobilenet, photo)["results"]
    assert result["best"]["id"] == "n07747607"


class Sides(NamedTuple):
    """What `photo_answers.py` wrote here and on the emulated machine, and of which artefact."""

    artefact: Path
    here: dict[str, Any]
    there: dict[str, Any]


def _both_sides(arm64: Emulated, artefact: Path, pictures: Path, count: int) -> Sides:
    script, folder = Path(photo_answers.__file__), artefact.parent
    outs = {side: folder / f"{artefact.stem}.{side}.npz" for side in ("here", "there")}
    run(sys.executable, script, artefact, pictures, outs["here"], count)
    arm64.run(script, artefact, pictures, outs["there"], count)
    return Sides(artefact, *(dict(np.load(out)) for out in outs.values()))


@pytest.fixture(scope="module")
def demo_sides(arm64: Emulated, demo: Path) -> Sides:
    """Return both sides of the demo's own samples, all of them through the network."""
    return _both_sides(arm64, demo, SAMPLES, len(list(SAMPLES.iterdir())))


@pytest.fixture(scope="module")
def real_sides(
    arm64: Emulated, mobilenet: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Sides:
    """Return both sides of the photos, a few of them through the network."""
    folder = tmp_path_factory.mktemp("photos")
    photos = sorted((shared / "data" / "images").iterdir())
    for photo in photos[:: len(photos) // PHOTOS]:
        (folder / photo.name).symlink_to(photo.resolve())
    return _both_sides(arm64, mobilenet, folder, 3)


SIDES = pytest.mark.parametrize("sides", ["demo_sides", "real_sides"])


@pytest.mark.slow
def test_preprocessing_is_identical_on_photos(real_sides: Sides) -> None:
    assert real_sides.here["tensors"].shape == (PHOTOS, len(photo_answers.WAYS), 32)
    for name in ("pixels", "tensors"):
        np.testing.assert_array_equal(real_sides.there[name], real_sides.here[name])


@SIDES
def test_the_reference_kernels_are_identical(sides: str, request: pytest.FixtureRequest) -> None:
    _, here, there = request.getfixturevalue(sides)
    assert np.unique(here["reference"], axis=0).shape == here["reference"].shape
    np.testing.assert_array_equal(there["reference"], here["reference"])


@SIDES
def test_xnnpack_stays_within_the_tolerance(sides: str, request: pytest.FixtureRequest) -> None:
    artefact, here, there = request.getfixturevalue(sides)
    given = read_artefact(artefact).contract.output.tensor
    outputs = [dequantise(side["default"], given) for side in (here, there)]
    assert sqnr(*outputs) >= TOLERANCES["int8"]
    assert np.array_equal(outputs[0].argmax(axis=1), outputs[1].argmax(axis=1))


@pytest.mark.parametrize(
    ("processor", "release", "engines"),
    [
        ("arm64", "bookworm", ["ai-edge-litert"]),
        ("arm64", "trixie", ["ai-edge-litert"]),
        ("armv7", "bookworm", ["tflite-runtime"]),
        ("armv7", "trixie", []),
    ],
)
def test_a_root_has_the_wheels_that_its_machine_asks_for(
    processor: str, release: str, engines: list[str]
) -> None:
    asked = emulated_root.requirements(emulated_machines.PROCESSORS[processor], release)
    names = [requirement.partition(">=")[0].partition("==")[0] for requirement in asked]
    assert [name for name in names if "lite" in name] == engines
    assert "click" in names
    assert ("numpy" in names) == (processor == "arm64")


def test_without_apt_it_says_so(tmp_path: Path) -> None:
    done = make("arm64", tmp_path / "root", PATH=str(tmp_path), KEDGE_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout) == (os.EX_UNAVAILABLE, "")
    assert done.stderr.startswith("no emulation of arm64 here: it has no apt-get")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not shutil.which("apt-get"), reason="it has no apt-get")
def test_without_a_mirror_it_says_so(tmp_path: Path) -> None:
    nowhere = {"KEDGE_DEBIAN_MIRROR": f"file://{tmp_path}/nowhere", "KEDGE_CACHE": str(tmp_path)}
    done = make("arm64", tmp_path / "root", **nowhere)
    assert (done.returncode, done.stdout) == (os.EX_UNAVAILABLE, "")
    assert done.stderr.startswith("no emulation of arm64 here: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.glob(".making-*")) == []
