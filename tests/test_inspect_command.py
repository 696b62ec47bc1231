"""`kedge inspect`: the page, the object, the exit codes, and what it does without any engine."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import Run, tiny_contract
from kedge_convert.commands.inspect import _few
from kedge_convert.device import vela
from kedge_runtime.artefact.contract import Normalisation
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.terminal import WIDEST

MODELS = Path(__file__).parent / "models"

# Nothing but numpy and click: neither an engine nor a schema, as on 32-bit ARM.
ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        blocked = ("tensorflow", "keras", "onnx", "onnxruntime", "rich", "ai_edge_litert",
                   "tflite_runtime", "flatbuffers", "google")
        if name.partition(".")[0] in blocked:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Blocker())
from kedge_runtime.cli import main
main()
"""


def _object(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    assert (found["schema"], found["command"]) == (1, "inspect")
    return found


def test_the_page_of_a_sealed_file(kedge: Run, artefacts: Path) -> None:
    code, out, err = kedge("inspect", artefacts / "tiny.tflite")
    assert (code, err) == (0, "")
    for words in (
        "tiny.tflite: tflite, float32",  # by its contract, which the fixture writes by hand
        "int8 1x16x16x3, scale 0.00784314, zero point -1",
        "pixels      x / 127.5 - 1, of a byte x 0..255",
        "4: red, green, blue, dark\n",
        "output is   logits, a raw score per class; the file has no softmax",
        "1  CONV_2D                        int8       version 3",
        "weights of FULLY_CONNECTED     int8       per channel",
        "bytes of activations at once (estimate)",
    ):
        assert words in out


def test_raw_pixels_many_labels_and_float_files_are_said_plainly(
    kedge: Run, models: dict[str, bytes], tmp_path: Path
) -> None:
    contract = tiny_contract("onnx")
    raw = replace(contract.input, normalisation=Normalisation())
    path = tmp_path / "tiny.onnx"
    path.write_bytes(seal("onnx", models["onnx"], replace(contract, input=raw), Golden.none()))
    _, out, _ = kedge("inspect", path)
    assert "pixels      bytes as they are, 0 to 255\n" in out
    assert "  none: weights float32, activations float32\n" in out
    operators = out.partition("operators\n")[2].partition("\n\n")[0].splitlines()
    assert {line.split()[2] for line in operators} == {"float32"}
    assert _few([f"c{i}" for i in range(12)]) == "c0, c1, c2, ... c11"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({}, "a raw score per class; the file has no softmax: kedge"),
        ({"activation": "sigmoid"}, "the file has no sigmoid: kedge"),
        (
            {"temperature": 1.5},
            "a raw score per class, to be divided by 1.5; the file has no softmax",
        ),
        ({"kind": "softmax"}, "probabilities that sum to 1; the softmax is in the file labels"),
        ({"kind": "sigmoid"}, "an independent probability per class; the sigmoid is in the"),
        ({"kind": "features"}, "features, numbers that describe the image; there are no classes"),
    ],
)
def test_the_page_tells_what_the_output_is(
    kedge: Run, models: dict[str, bytes], tmp_path: Path, output: dict[str, Any], said: str
) -> None:
    contract = tiny_contract("onnx")
    contract = replace(contract, output=replace(contract.output, **output))
    path = tmp_path / "tiny.onnx"
    path.write_bytes(seal("onnx", models["onnx"], contract, Golden.none()))
    assert said in " ".join(kedge("inspect", path)[1].split())


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_page_keeps_to_the_terminal(
    kedge: Run, artefacts: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = kedge("inspect", artefacts / "tiny.onnx", "--device", "coral")[1]
    assert max(map(len, out.splitlines())) <= min(columns, WIDEST)


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx"])
def test_a_foreign_file_is_read_too(kedge: Run, name: str) -> None:
    code, out, _ = kedge("inspect", MODELS / name)
    assert code == 0
    assert "none: kedge didn't make it (classify and bench take --contract)" in out
    found = _object(kedge("inspect", MODELS / name, "--json")[1])
    assert found["contract"] is None
    assert found["precision"] == {"tiny.tflite": "int8", "tiny.onnx": "float32"}[name]


def test_the_object(kedge: Run, artefacts: Path) -> None:
    path = artefacts / "tiny.onnx"
    found = _object(kedge("inspect", path, "--json")[1])
    assert list(found) == [
        *("schema", "command", "artefact", "format", "precision", "contract", "inputs", "outputs"),
        *("operators", "quantisation", "bytes", "arena_bytes", "tensors", "device"),
    ]
    assert found["contract"]["labels"][0] == {"id": "t0", "name": "red"}
    assert sum(found["bytes"].values()) == path.stat().st_size
    assert found["inputs"][0]["shape"] == [1, 8, 8, 3]
    assert [row["kind"] for row in found["operators"]] == ["MatMul", "ReduceMean"]
    assert found["device"] is None


FITS: list[tuple[str, str, int, dict[str, str]]] = [
    ("tiny.tflite", "coral", 0, {"dense": "note", "operators": "note", "I/O dtype": "ok"}),
    ("tiny.onnx", "coral", 1, {"precision": "problem"}),
    ("tiny.tflite", "pi-zero2", 0, {"precision": "ok", "memory": "ok"}),
    ("tiny.onnx", "pi5", 0, {"precision": "ok"}),
    ("tiny.onnx", "armv7", 1, {"precision": "problem"}),
    ("tiny.onnx", "x86", 0, {"precision": "ok"}),
]


@pytest.mark.parametrize(("name", "device", "code", "states"), FITS)
def test_a_file_is_held_against_a_device(
    kedge: Run,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    device: str,
    code: int,
    states: dict[str, str],
) -> None:
    monkeypatch.setenv("PATH", "")
    done, out, _ = kedge("inspect", MODELS / name, "--device", device, "--json")
    verdict = _object(out)["device"]
    found = {each["name"]: each for each in verdict["findings"]}
    assert done == code and verdict["fits"] == (code == 0)
    assert {key: found[key]["state"] for key in states} == states
    assert all(each["fix"] for each in found.values() if each["state"] == "problem")
    page = kedge("inspect", MODELS / name, "--device", device)[1]
    assert ("It fits." if code == 0 else "It doesn't fit") in page


def test_int8_onnx_weights_beyond_7_bits_dont_fit_x86(kedge: Run, demo_artefacts: Path) -> None:
    path = demo_artefacts / "demo.int8.onnx"
    code, out, _ = kedge("inspect", path, "--device", "x86")
    assert code == 1
    assert "int8 weights reach 127" in " ".join(out.split())
    assert kedge("inspect", path, "--device", "x86-vnni")[0] == 0


def test_a_float_file_doesnt_fit_an_integer_device(kedge: Run, demo_artefacts: Path) -> None:
    code, out, _ = kedge("inspect", demo_artefacts / "demo.float32.tflite", "--device", "coral")
    assert code == 1
    assert "works on float32, the Edge TPU on int8 and uint8" in out


def test_a_compiled_file_fits_its_own_machine_only(kedge: Run, shared: Path) -> None:
    path = shared / "data" / "edgetpu" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    code, out, _ = kedge("inspect", path, "--device", "coral")
    assert (code, "compiled: nothing stays on the CPU" in out) == (0, True)
    code, out, _ = kedge("inspect", path, "--device", "pi4")
    assert (code, "has edgetpu-custom-op, compiled for another machine" in out) == (1, True)


def test_gates_of_vela_decide_the_exit_code(kedge: Run, demo_artefacts: Path) -> None:
    if reason := vela.missing():
        pytest.skip(reason)
    words = ["inspect", demo_artefacts / "demo.int8.tflite", "--device", "ethos-u55-128"]
    code, out, _ = kedge(*words)
    assert (code, "30 of 30 on the accelerator" in out) == (0, True)
    assert kedge(*words, "--max-sram", "10")[0] == 1
    assert kedge(*words, "--max-sram", "10KB")[0] == 1
    assert kedge(*words, "--max-sram", "1MB")[0] == 0


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx"])
def test_it_needs_neither_engine_nor_schema(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copyfile(MODELS / name, path)
    command = [sys.executable, "-W", "error", "-c", ALONE, "inspect", path, "--device", "pi4"]
    done = subprocess.run(
        [*map(str, command), "--json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert _object(done.stdout)["device"]["fits"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.tflite"], "none.tflite: no such file"),
        ([MODELS / "tiny.onnx", "--device", "pi3"], "no device called 'pi3'"),
        ([Path(__file__)], "artefacts end in .tflite, .onnx"),
    ],
)
def test_mistakes_are_one_line(kedge: Run, words: list[Any], message: str) -> None:
    code, out, err = kedge("inspect", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_changed_file_is_refused(kedge: Run, artefacts: Path, tmp_path: Path) -> None:
    content = bytearray((artefacts / "tiny.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "changed.tflite"
    path.write_bytes(content)
    code, _, err = kedge("inspect", path)
    assert (code, "changed since it was sealed" in err or "no readable" in err) == (2, True)
