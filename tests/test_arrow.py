"""The arrow convert -> models -> runtime, held where no linter sees: in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

FOREIGN = ("tensorflow", "keras", "onnx", "tf2onnx", "rich", "PIL", "kedge_convert", "kedge_models")

# A finder at the head of the line: whoever asks for one of these gets an ImportError.
BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOREIGN}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Blocker())
"""

WALK = """
import importlib, pkgutil, kedge_runtime

def fail(name):
    raise ImportError(name)

walked = pkgutil.walk_packages(kedge_runtime.__path__, "kedge_runtime.", fail)
print(*sorted(module.name for module in walked if importlib.import_module(module.name)))
"""

CLASSIFY = """
from kedge_runtime.cli import main
main()
"""


def _python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", FOREIGN)
def test_the_blocker_blocks(name: str) -> None:
    done = _python(f"{BLOCK}\nimport {name}")
    assert f"ImportError: blocked: {name}" in done.stderr


def test_every_module_of_the_runtime_imports_alone() -> None:
    done = _python(BLOCK + WALK)
    assert done.returncode == 0, done.stderr
    root = Path(__file__).parent.parent / "runtime"
    files = [path.relative_to(root).with_suffix("") for path in root.rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in files}
    assert set(done.stdout.split()) == names - {"kedge_runtime"}


@pytest.mark.parametrize(
    ("form", "engine"), [("tflite", "ai_edge_litert"), ("onnx", "onnxruntime")]
)
def test_the_runtime_classifies_alone(
    artefacts: Path, tmp_path: Path, form: str, engine: str
) -> None:
    pytest.importorskip(engine)
    picture = tmp_path / "blue.png"
    blue = np.zeros((20, 30, 3), np.uint8)
    blue[..., 0] = 255
    picture.write_bytes(cv2.imencode(".png", blue)[1].tobytes())
    arguments = ["classify", artefacts / f"tiny.{form}", picture, "--json"]
    done = _python(BLOCK + CLASSIFY, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["results"][0]["predictions"][0]["name"] == "blue"


HELP = """
import sys
from kedge_runtime.cli import main
sys.argv = ["kedge", sys.argv[1]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = loaded & {"numpy", "cv2", "tensorflow", "keras", "onnxruntime", "ai_edge_litert"}
assert not heavy, heavy
"""


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    done = _python(HELP, option)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kedge" in done.stdout
