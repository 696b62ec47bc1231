"""A small fixed run of the model fuzzer: what passes the check must not end an engine.

`python tests/fuzz/models.py` runs as long as it is told to.
"""

import subprocess
import sys

import pytest

from conftest import MODELS, TESTS
from hostile_models import KINDS, changed

LIBRARIES = {
    "tflite": ("ai_edge_litert.schema_py_generated", "ai_edge_litert.interpreter"),
    "onnx": ("onnx", "onnxruntime"),
}


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_no_mutant_that_passes_the_check_ends_an_engine(form: str) -> None:
    """In a fresh process, as its children are forks: OpenCV's threads don't survive one."""
    for library in LIBRARIES[form]:
        pytest.importorskip(library)
    seed = MODELS / f"tiny.{form}"
    command = [sys.executable, "-m", "fuzz.models", form, "60", "14", str(seed), "--most", "60"]
    ended = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "refused" in ended.stdout
    assert "all passed" in ended.stdout


def test_the_fuzzer_sees_a_dying_engine() -> None:
    for library in LIBRARIES["tflite"]:
        pytest.importorskip(library)
    from fuzz.models import trial

    change, _ = KINDS["tflite"]["a new shape left out"]
    content = changed("tflite", (MODELS / "tiny.tflite").read_bytes(), change)
    found = trial("tflite", content, checked=False)
    assert {outcome.word for outcome in found.values()} == {"SIGSEGV"}
