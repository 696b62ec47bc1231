"""`kedge.toml`: what is read from it, the cells it makes, and what is refused in one line."""

from pathlib import Path

import pytest

from kedge_convert.matrix import keys
from kedge_convert.matrix.cells import CellGroup, groups
from kedge_convert.matrix.config import BuildConfig, BuildGates, read_config
from kedge_convert.quantise.effort import FAST
from kedge_models.devices import device
from kedge_runtime.errors import KedgeError

WHOLE = """
out = "artefacts"

[defaults]
images = "photos"
calibrate = "images"
targets = ["tflite:int8", "onnx:float32"]

[defaults.gates]
max_drop = 0.01
max_bytes = 4_000_000

[options]
effort = ["default", "fast"]
seed = [3]

[[model]]
name = "flowers"
source = "flowers.keras"
labels = "classes.txt"

[model.gates]
max_drop = 0.02

[[model]]
name = "MobileNetV2"
targets = ["tflite:int8"]

[[target]]
name = "tflite:int8"

[target.gates]
max_bytes = 1_000_000
device = "coral"
min_mapped = 0.9
"""


def read(folder: Path, text: str) -> BuildConfig:
    path = folder / "kedge.toml"
    path.write_text(text)
    return read_config(path)


@pytest.fixture
def found(tmp_path: Path) -> tuple[CellGroup, ...]:
    return groups(read(tmp_path, WHOLE))


def test_cells_are_models_by_options_by_targets(found: tuple[CellGroup, ...]) -> None:
    assert [cell.name for group in found for cell in group.cells] == [
        "flowers.effort-default.int8.tflite",
        "flowers.effort-default.float32.onnx",
        "flowers.effort-fast.int8.tflite",
        "flowers.effort-fast.float32.onnx",
        "MobileNetV2.effort-default.int8.tflite",
        "MobileNetV2.effort-fast.int8.tflite",
    ]


def test_the_nearest_gate_holds(found: tuple[CellGroup, ...]) -> None:
    gates = {cell.name: cell.gates for group in found for cell in group.cells}
    integer, whole = "flowers.effort-default.int8.tflite", "flowers.effort-default.float32.onnx"
    assert gates[whole] == BuildGates(max_drop=0.02, max_bytes=4_000_000)
    special = {"max_bytes": 1_000_000, "device": "coral", "min_mapped": 0.9}
    assert gates[integer].limits == {"max_drop": 0.02, **special}
    assert gates["MobileNetV2.effort-default.int8.tflite"].limits == {"max_drop": 0.01, **special}


def test_the_job_is_what_was_written(found: tuple[CellGroup, ...], tmp_path: Path) -> None:
    group = found[1]
    job = group.job(tuple(cell.target for cell in group.cells), tmp_path)
    assert (job.request.model, job.request.labels) == tuple(
        str(tmp_path / name) for name in ("flowers.keras", "classes.txt")
    )
    assert (job.calibrate, job.effort, job.sampling.seed) == (tmp_path / "images", FAST, 3)
    assert [str(target) for target in job.targets] == ["tflite:int8", "onnx:float32"]


def test_a_card_is_no_file(found: tuple[CellGroup, ...], tmp_path: Path) -> None:
    request = found[2].job((), tmp_path).request
    assert (request.model, request.weights, request.labels) == ("MobileNetV2", "imagenet", None)


def test_a_device_brings_its_targets_and_is_in_the_job_and_the_key(tmp_path: Path) -> None:
    text = '[[model]]\nname = "demo"\ndevice = "coral"\n'
    gated = text + '[model.gates]\ndevice = "coral"\nmin_mapped = 0.5\n'
    plain = MODEL.replace("float32", "int8")
    (one,), (eased,), (without,) = (groups(read(tmp_path, each)) for each in (text, gated, plain))
    assert [str(cell.target) for cell in one.cells] == ["tflite:int8"]
    jobs = [group.job((), tmp_path) for group in (one, eased, without)]
    assert [job.device for job in jobs] == [device("coral"), device("coral"), None]
    assert [job.gates.mapped for job in jobs] == [1.0, 0.5, 1.0]
    assert len({keys.artefact_key(group.cells[0]) for group in (one, eased, without)}) == 3


MODEL = '[[model]]\nname = "demo"\ntargets = ["tflite:float32"]\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("out = ", "kedge.toml: Invalid value"),
        ("", "no [[model]] to build"),
        (MODEL.replace("[[model]]", "[model]"), "got one table, expected a list: [[model]]"),
        ("model = []", "no [[model]] to build"),
        (MODEL + "hue = 1", "kedge.toml.model[0]: unknown key 'hue'; known are name, source"),
        ("[defaults]\nhue = 1\n" + MODEL, "kedge.toml.defaults: unknown key 'hue'; known"),
        ("[options]\ncolour = 1\n" + MODEL, "kedge.toml.options: unknown key 'colour'; known"),
        (
            "colour = 1\n" + MODEL,
            "kedge.toml: unknown key 'colour'; known are model, defaults, target, options, out",
        ),
        (MODEL + "[model.gates]\nmax_flips = 1", "unknown key 'max_flips'; known are max_drop"),
        ("defaults = 1\n" + MODEL, "kedge.toml.defaults: got 1, expected a table"),
        ("[options]\neffort = []\n" + MODEL, "an empty list has no combinations"),
        ('[options]\neffort = "most"\n' + MODEL, "options.effort: got 'most', allowed are fast, "),
        (MODEL + MODEL, "'demo' is used twice"),
        (MODEL + '\nimages = ""', "demo.images: it is empty; give a value or remove the key"),
        (MODEL.replace("demo", "a.b"), "a model has the name 'a.b'; allowed are letters"),
        (MODEL.replace("demo", "../a"), "a model has the name '../a'; allowed are letters"),
        (MODEL.replace("tflite:float32", "tflite:int4"), "got 'tflite:int4', allowed are"),
        ('[[model]]\nname = "demo"', "demo: has no targets"),
        (MODEL + "[model.gates]\nmax_drop = 2", "max_drop: 2 would be 200 points: give 2pp or .02"),
        (
            MODEL + "[defaults.gates]\nmax_drop = 1.0",
            "kedge.toml.defaults.gates.max_drop: 1.0 would be 100 points: give 1pp or .01",
        ),
        (MODEL + "[model.gates]\nmax_drop = true", "max_drop: True is no drop: allowed are 0pp"),
        (MODEL + "[model.gates]\nmin_agreement = 2", "min_agreement: got 2, allowed are 0 to 1"),
        (MODEL + "[model.gates]\nmin_mapped = 1", "min_mapped needs a device"),
        (MODEL + "[model.gates]\nmax_drop = .1", "Invalid"),
        (
            MODEL + "[model.gates]\nmax_drop = 0.1",
            "max_drop and min_agreement need images; add images",
        ),
        (
            MODEL + 'truth = "none"\nimages = "photos"\n[model.gates]\nmax_drop = 0.1',
            'max_drop needs ground truth, but truth is "none"',
        ),
        (MODEL + '[model.gates]\ndevice = "toaster"', "no device called 'toaster'"),
        (MODEL + 'device = "toaster"', "no device called 'toaster'"),
        (MODEL + 'device = "coral"', "coral can't run tflite:float32, allowed are tflite:int8"),
        (
            MODEL.replace("float32", "float16") + "[model.gates]\nmax_latency_ratio = 1.0",
            "max_latency_ratio compares with demo.float32.tflite; add its target",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(KedgeError) as found:
        groups(read(tmp_path, text))
    assert line in str(found.value)
    assert "\n" not in str(found.value)
    assert found.value.exit_code == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KedgeError, match=r"none\.toml: can't be read"):
        read_config(tmp_path / "none.toml")
