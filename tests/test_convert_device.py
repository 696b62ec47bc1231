"""`kedge convert --device`: what the profile changes in the file, and how it is held against it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import test_edge_compilers as compilers
from conftest import MODELS, Run
from kedge_convert.commands.options import Sram
from kedge_convert.device.fit import DeviceGates, fit
from kedge_convert.export.exported import Recipe
from kedge_convert.job import Checked, Job, Outcome
from kedge_convert.parity import Parity
from kedge_convert.targets import TARGETS
from kedge_convert.verdict import Verdict
from kedge_convert.worker import supervisor
from kedge_models.demo import shapes
from kedge_models.devices import device
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.modelfile.report import inspect

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

FEW = ["--calibrate-count", "25", "--check-count", "15", "--min-agreement", "0.6"]


class Made(NamedTuple):
    """A conversion by the real command: its exit code, folder and artefacts by target."""

    code: int
    folder: Path
    artefacts: dict[str, dict[str, Any]]


def convert(folder: Path, *words: object) -> Made:
    """Run `kedge convert` in a process of its own."""
    command = [sys.executable, "-m", "kedge_runtime.cli", "convert", *map(str, words)]
    more = ["--out", str(folder), "--json"]
    ran = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    found = {item["target"]: item for item in json.loads(ran.stdout)["artefacts"]}
    return Made(ran.returncode, folder, found)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path, pictures: Path) -> list[object]:
    """Return the words that convert the tiny model."""
    labels = tiny_model.with_name("labels.txt")
    return [
        tiny_model,
        "--preprocess",
        "imagenet",
        "--normalisation",
        "tf",
        "--labels",
        labels,
        "--calibrate",
        pictures,
        *FEW,
    ]


@pytest.fixture(scope="module")
def coral(tiny: list[object], tmp_path_factory: pytest.TempPathFactory) -> Made:
    return convert(tmp_path_factory.mktemp("coral"), *tiny, "--device", "coral")


def test_the_device_says_what_is_made(coral: Made) -> None:
    assert (coral.code, list(coral.artefacts)) == (0, ["tflite:int8"])
    contract = read_artefact(coral.folder / "tiny.int8.tflite").contract
    assert contract.provenance.device == "coral"
    assert (contract.input.tensor.dtype, contract.output.tensor.dtype) == ("uint8", "uint8")


def test_its_dense_layers_have_one_scale(coral: Made) -> None:
    rows = inspect(coral.folder / "tiny.int8.tflite").summary.quantisation
    kernels = {row.kind: row.granularity for row in rows if row.role == "weights"}
    assert (kernels["FULLY_CONNECTED"], kernels["CONV_2D"]) == ("tensor", "channel")


def test_it_is_forecast_to_map_and_says_that_nothing_was_compiled(coral: Made) -> None:
    (item,) = coral.artefacts.values()
    held = item["device"]
    assert (held["name"], held["fits"], item["compiled"]) == ("coral", True, None)
    assert {fate["level"] for fate in held["forecast"]} == {"maps"}
    findings = {each["name"]: each["detail"] for each in held["findings"]}
    assert findings["operators"].endswith(" will map (forecast, not compiled)")


def test_it_verifies_and_classifies(coral: Made, pictures: Path, kedge: Run) -> None:
    path = coral.folder / "tiny.int8.tflite"
    assert kedge("verify", path)[0] == 0
    code, out, _ = kedge("classify", path, min(pictures.iterdir()), "--json")
    assert (code, len(json.loads(out)["results"])) == (0, 1)


@pytest.mark.parametrize("device", [["--device", "pi4"], []])
def test_it_is_not_replaced_by_one_for_another_device(
    tiny: list[object], coral: Made, kedge: Run, device: list[str]
) -> None:
    path = coral.folder / "tiny.int8.tflite"
    before = path.read_bytes()
    code, out, err = kedge("convert", *tiny, *device, "--out", coral.folder)
    taker = "for pi4" if device else "without --device"
    said = f"{path} was made for coral, one made {taker} would replace it; give each device"
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"kedge: --out: {said} a folder")
    assert path.read_bytes() == before


def test_without_vnni_the_weights_of_onnx_keep_to_seven_bits(
    tiny: list[object], tmp_path: Path
) -> None:
    made = convert(tmp_path, *tiny, "--device", "x86", "--to", "onnx:int8")
    (item,) = made.artefacts.values()
    findings = {each["name"]: each for each in item["device"]["findings"]}
    assert (made.code, findings["weights"]["state"]) == (0, "ok")
    assert findings["weights"]["detail"] == "int8 weights within 7 bits (at most 64)"


@pytest.mark.slow
def test_what_does_not_fit_is_rejected_unless_it_is_rewritten(
    pictures: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(label.name for label in shapes.LABELS))
    model = [
        MODELS / "small-mobilenetv3.keras",
        "--preprocess",
        "imagenet",
        "--normalisation",
        "tf",
        "--labels",
        labels,
    ]
    words = [*model, "--calibrate", pictures, *FEW, "--effort", "fast", "--device", "coral"]
    made = convert(tmp_path / "as it is", *words)
    (item,) = made.artefacts.values()
    assert (made.code, Path(item["path"]).suffix) == (1, ".rejected")
    assert item["reasons"][0].startswith("coral: operators: ")
    assert item["reasons"][0].endswith("; convert with --rewrite hard-swish")
    rewritten = convert(tmp_path / "rewritten", *words, "--rewrite", "hard-swish")
    (item,) = rewritten.artefacts.values()
    assert (rewritten.code, item["device"]["fits"]) == (0, True)


def test_the_compiled_file_lies_beside_its_artefact(
    tiny: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilers.play(tmp_path, monkeypatch)
    made = convert(tmp_path / "out", *tiny, "--effort", "fast", "--device", "coral")
    (item,) = made.artefacts.values()
    assert item["device"]["compilation"]["compiler"] == "edgetpu_compiler 16.0.384591198"
    plain, compiled = (read_artefact(Path(item[key])) for key in ("path", "compiled"))
    assert compiled.path.name == "tiny.int8_edgetpu.tflite"
    assert (compiled.contract.labels, compiled.golden.images) == (
        plain.contract.labels,
        plain.golden.images,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--device coral --to onnx:int8", "--to: coral can't run onnx:int8, allowed are tflite:"),
        ("--device pi3", "no device called 'pi3': did you mean pi"),
    ],
)
def test_a_mistake_is_one_line(kedge: Run, words: str, said: str) -> None:
    code, out, err = kedge("convert", "demo", *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"kedge: {said}")


def test_people_are_told_what_fits_and_gates_reach_the_job(
    artefacts: Path, kedge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artefacts / "tiny.tflite"
    found = Parity(1, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 90.0, 0.0)
    fitted = fit(inspect(path), device("pi5"))
    checked = Checked(
        path, 1, 0.5, found, Recipe("float32"), "softmax", fitted, Path("it_vela.tflite")
    )
    jobs: list[Job] = []

    def instead(job: Job, *_: object) -> list[Outcome]:
        jobs.append(job)
        return [Outcome(TARGETS[0], Verdict(), checked)]

    monkeypatch.setattr(supervisor, "convert", instead)
    words = "--device pi5 --min-mapped 0.5 --max-sram 100"
    code, out, _ = kedge("convert", "demo", *words.split())
    lines = [" ".join(line.split()) for line in out.splitlines()]
    told = {"on pi5 (Raspberry Pi 5, 64 bit)", "ok precision tflite:float32", "It fits."}
    assert (code, told - set(lines), "it_vela.tflite" in lines) == (0, set(), True)
    assert [(job.device, job.gates) for job in jobs] == [(device("pi5"), DeviceGates(0.5, 100.0))]


@pytest.mark.parametrize(
    ("text", "kilobytes"), [("512", 512), ("512KB", 512), ("1.5 MiB", 1536), ("2M", 2048)]
)
def test_sram_has_the_units_of_data_sheets(text: str, kilobytes: float) -> None:
    assert Sram().convert(text, None, None) == kilobytes


@pytest.mark.parametrize("text", ["12B", "-1", "1GB", "nan"])
def test_a_wrong_size_of_sram_says_what_is_allowed(kedge: Run, text: str) -> None:
    code, _, error = kedge("convert", "demo", "--device", "pi5", "--max-sram", text)
    assert (code, f"got {text!r}, allowed are e.g. 512KB, 1MB" in error) == (2, True), error


def fully_mapped(item: dict[str, Any]) -> None:
    """Fail unless every operator of an artefact is forecast to run on the Edge TPU."""
    fates = item["device"]["forecast"]
    assert [fate for fate in fates if fate["level"] != "maps"] == []
    assert len(fates) > 30


@pytest.mark.slow
def test_the_demo_is_forecast_as_fully_mapped(tmp_path: Path) -> None:
    made = convert(tmp_path, "demo", "--device", "coral", "--calibrate-count", 60)
    (item,) = made.artefacts.values()
    assert (made.code, item["parity"]["images"], item["parity"]["agreement"]) == (0, 100, 1.0)
    fully_mapped(item)


@pytest.mark.slow
def test_mobilenet_v2_is_forecast_as_fully_mapped_and_agrees(shared: Path, tmp_path: Path) -> None:
    model = shared / "data" / "models" / "mobilenet_v2_1.0_224.keras"
    words = ["--card", "MobileNetV2", "--calibrate", shared / "data" / "images", "--device"]
    made = convert(tmp_path, model, *words, "coral", "--calibrate-count", 40)
    (item,) = made.artefacts.values()
    fully_mapped(item)
    assert (made.code, item["method"], item["parity"]["images"]) == (0, "prepared", 100)
    assert item["parity"]["agreement"] >= 0.96
