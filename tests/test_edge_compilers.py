"""The accelerators' compilers: Vela is the real one, the Edge TPU's is a script that plays it.

Coral's compiler can't be had from a package registry. The script writes what version 16 writes, by
logs that its users have published; what the real one does to a graph is in test_forecast.py.
"""

import sys
from pathlib import Path

import pytest

import test_delegates
from kedge_convert.device import edgetpu, vela
from kedge_convert.device.compilation import Compilation, Row, reseal
from kedge_convert.device.compilers import COMPILERS, Attempt, attempt, compiled_name
from kedge_convert.device.fit import DeviceGates, fit
from kedge_convert.device.forecast import forecast
from kedge_convert.toolkit import ConversionError
from kedge_models.devices import Device, device, devices
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.checks.verify import verify
from kedge_runtime.engines.choice import EngineOptions
from kedge_runtime.modelfile.network import read_network
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.output import quiet

TINY = Path(__file__).parent / "models" / "tiny.tflite"
CORAL, U55, U65 = device("coral"), device("ethos-u55-128"), device("ethos-u65-512")

# As the compiler writes them: the table's columns are 31 and 11 wide.
SAID = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1041 ms.

Input model: {path}
Input size: 3.38MiB
Output model: {made}
Output size: 3.60MiB
On-chip memory used for caching model parameters: 3.33MiB
On-chip memory remaining for caching model parameters: 4.34MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: {total}
Operation log: {log}
See the operation log file for individual operation details.
"""
LOG = """Edge TPU Compiler version 16.0.384591198
Input: {path}
Output: {made}

Operator                       Count      Status

{rows}"""

SCRIPT = """#!{python}
import shutil, sys
from pathlib import Path
_, show, out, folder, path = sys.argv
assert (show, out) == ("-s", "-o"), sys.argv
made = Path(folder) / (Path(path).stem + "_edgetpu.tflite")
shutil.copyfile(path, made)  # what lies behind the flatbuffer is kept, as the real one does
log = made.with_suffix(".log")
values = dict(path=path, made=made, log=log, total={total}, rows={rows!r})
log.write_text({log!r}.format(**values))
print({said!r}.format(**values))
"""
ROWS = "CONV_2D                        1          Mapped to Edge TPU\n"
MIXED = (
    "CONV_2D                        2          Mapped to Edge TPU\n"
    "CONV_2D                        1          More than one subgraph is not supported\n"
    "HARD_SWISH                     3          Operation is otherwise supported, but not mapped "
    "due to some unspecified limitation\n"
)


def _on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    command = folder / "edgetpu_compiler"
    command.write_text(script)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def _compiled(original: Path, device: Device) -> Path:
    """Write what the device's compiler makes of an artefact beside it."""
    place = compiled_name(original, device)
    place.write_bytes(attempt(original, device).content)
    return place


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a compiler on PATH."""
    play(tmp_path, monkeypatch)


def play(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script on PATH that maps everything."""
    values = {"python": sys.executable, "rows": ROWS, "total": 1, "log": LOG, "said": SAID}
    _on_path(folder, monkeypatch, SCRIPT.format(**values))


def test_a_device_names_a_compiler_that_is_there() -> None:
    assert {each.compiler for each in devices().values()} == {"none", *COMPILERS}


def test_the_compilers_log_is_read() -> None:
    said = SAID.format(path="a", made="b", log="c", total=6)
    assert edgetpu.parse(said, LOG.format(path="a", made="b", rows=MIXED)) == Compilation(
        "edgetpu_compiler 16.0.384591198",
        2,
        6,
        (
            Row("CONV_2D", 2, "Mapped to Edge TPU"),
            Row("CONV_2D", 1, "More than one subgraph is not supported"),
            Row(
                "HARD_SWISH",
                3,
                "Operation is otherwise supported, but not mapped due to some unspecified "
                "limitation",
            ),
        ),
        {"cached_kb": 3409.92, "cache_left_kb": 4444.16, "streamed_kb": 0.0, "segments": 1.0},
    )


def test_a_log_without_its_table_is_refused() -> None:
    with pytest.raises(ConversionError, match="no table of operators"):
        edgetpu.parse("Edge TPU Compiler version 16.0", "Internal compiler error. Aborting!")


def test_without_the_compiler_the_forecast_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert attempt(TINY, CORAL) == Attempt()
    verdict = fit(inspect(TINY), CORAL)
    assert verdict.compilation is None
    assert verdict.findings["operators"].detail.endswith("(forecast, not compiled)")


@pytest.mark.usefixtures("player")
def test_with_the_compiler_its_word_counts() -> None:
    verdict = fit(inspect(TINY), CORAL)
    assert verdict.findings["operators"].detail == (
        "1 of 1 on the accelerator (edgetpu_compiler 16.0.384591198)"
    )
    assert [fate.level for fate in verdict.forecast] == [
        fate.level for fate in forecast(read_network(read_content(TINY)), CORAL)
    ]


@pytest.mark.usefixtures("player")
def test_the_compiled_file_keeps_contract_and_golden_set_and_verifies(
    demo_artefacts: Path, tmp_path: Path
) -> None:
    original = tmp_path / "demo.int8.tflite"
    original.write_bytes((demo_artefacts / original.name).read_bytes())
    made = _compiled(original, CORAL)
    before, after = read_artefact(original), read_artefact(made)
    assert made.name == "demo.int8_edgetpu.tflite"
    assert (after.contract.input, after.contract.output) == (
        before.contract.input,
        before.contract.output,
    )
    assert after.contract.labels == before.contract.labels
    assert after.golden.images == before.golden.images
    assert after.contract.provenance.tools["edgetpu_compiler"] == "16.0.384591198"
    assert after.digest != before.digest
    # A delegate that takes no node: what is left runs on the CPU.
    library = test_delegates._compile(test_delegates.SOURCE, tmp_path / "delegate.so")
    with quiet():
        stages = verify(made, EngineOptions(delegate=str(library)))
    assert [stage.name for stage in stages if not stage.passed] == []
    assert next(stage.detail for stage in stages if stage.name == "exact").startswith("skipped")


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _on_path(tmp_path, monkeypatch, "#!/bin/sh\necho 'Invalid model: x' >&2\nexit 1\n")
    finding = fit(inspect(TINY), CORAL).findings["operators"]
    assert (finding.state, finding.detail) == (
        "problem",
        "edgetpu_compiler refuses it: Invalid model: x",
    )


def test_a_compiler_that_writes_nothing_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_path(tmp_path, monkeypatch, "#!/bin/sh\nexit 0\n")
    refusal = attempt(TINY, CORAL).refusal
    assert refusal == "edgetpu_compiler wrote no model_edgetpu.tflite"


def test_an_unsealed_original_stays_unsealed() -> None:
    assert reseal(TINY, TINY, "edgetpu_compiler 16.0") == TINY.read_bytes()


def _vela_or_skip() -> None:
    if reason := vela.missing():
        pytest.skip(reason)


def test_vela_maps_the_demo_and_its_arena_is_our_estimate(demo_artefacts: Path) -> None:
    _vela_or_skip()
    path = demo_artefacts / "demo.int8.tflite"
    report = inspect(path)
    verdict = fit(report, U55)
    made = verdict.compilation
    assert made is not None and verdict.fits
    assert (made.mapped, made.operators, made.share) == (30, 30, 1.0)
    assert min(made.figures["macs"], made.figures["cycles"]) > 1e5
    # 500 MHz, by the profile's system configuration.
    assert made.figures["inference_ms"] == pytest.approx(made.figures["cycles"] / 500e3, rel=1e-3)
    # An independent planner: it needs buffers for weights besides.
    arena = report.summary.arena
    assert arena is not None
    assert 0.7 * made.figures["sram_kb"] < arena / 1024 < 1.1 * made.figures["sram_kb"]


@pytest.mark.parametrize(
    ("gates", "fits"),
    [(DeviceGates(), True), (DeviceGates(sram_kb=1), False), (DeviceGates(sram_kb=4096), True)],
)
def test_gates_hold_what_vela_says(demo_artefacts: Path, gates: DeviceGates, fits: bool) -> None:
    _vela_or_skip()
    path = demo_artefacts / "demo.int8.tflite"
    assert fit(inspect(path), U55, gates).fits is fits


def test_the_share_on_the_npu_is_a_gate(shared: Path) -> None:
    _vela_or_skip()
    path = shared / "data" / "edgetpu" / "movenet_single_pose_lightning_ptq.tflite"
    verdict = fit(inspect(path), U65)
    made = verdict.compilation
    assert made is not None and 0.5 < made.share < 1
    assert verdict.findings["operators"].state == "problem"
    eased = fit(inspect(path), U65, DeviceGates(mapped=0.5, sram_kb=1e6))
    assert eased.findings["operators"].state == "ok"


def test_a_model_of_velas_keeps_the_contract(demo_artefacts: Path, tmp_path: Path) -> None:
    _vela_or_skip()
    original = tmp_path / "demo.int8.tflite"
    original.write_bytes((demo_artefacts / original.name).read_bytes())
    made = _compiled(original, U55)
    compiled = read_artefact(made)
    assert compiled.contract.labels == read_artefact(original).contract.labels
    assert compiled.contract.provenance.tools["ethos-u-vela"]
    kinds = [operator.kind for operator in read_network(read_content(made)).operators]
    assert kinds == ["ethos-u"]


def test_vela_refuses_what_is_no_model(tmp_path: Path) -> None:
    _vela_or_skip()
    path = tmp_path / "bad.tflite"
    path.write_bytes(TINY.read_bytes()[:200])
    assert attempt(path, U55).refusal.startswith("ethosu.vela refuses it: ")


def test_a_missing_vela_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        vela, "missing", lambda: "Vela isn't installed: pip install 'keras-kedge[x]'"
    )
    finding = fit(inspect(TINY), U55).findings["operators"]
    assert (finding.state, "not compiled" in finding.detail) == ("note", True)
    assert "pip install" in finding.fix


def test_a_summary_of_another_version_is_refused() -> None:
    with pytest.raises(ConversionError, match="isn't as version 5 writes it"):
        vela.parse("CPU operators = 1 (50%)\nNPU operators = 1 (50%)", "a,b\n1,2\n")
