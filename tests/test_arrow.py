"""The arrow convert -> models -> runtime, held where no linter sees: in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import drift_references
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.signing import generate, write_pair
from kedge_runtime.checks.verify import walk
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.cli import COMMANDS

FOREIGN = (
    *("tensorflow", "keras", "onnx", "tf2onnx", "rich", "PIL", "distributed", "dask"),
    *("kedge_convert", "kedge_models"),
)

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

RUN = """
from kedge_runtime.cli import main
if __name__ == "__main__":
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


def test_preprocessing_needs_numpy_and_opencv_alone() -> None:
    """A program of its own, with another OpenCV and no command line, imports kedge's pixels."""
    block = BLOCK.replace(str(FOREIGN), str(("click", "ai_edge_litert", *FOREIGN)))
    assert "blocked: click" in _python(f"{block}\nimport click").stderr
    done = _python(f"{block}\nimport kedge_runtime.image.preprocessing")
    assert done.returncode == 0, done.stderr


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
    done = _python(BLOCK + RUN, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["results"][0]["predictions"][0]["name"] == "blue"


@pytest.fixture(scope="session")
def sealed(
    artefacts: Path,
    tmp_path_factory: pytest.TempPathFactory,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
) -> Path:
    """Return a folder of tiny artefacts with a true golden set and a reference, and `red.png`."""
    folder = tmp_path_factory.mktemp("sealed")
    red = np.zeros((40, 30, 3), np.uint8)
    red[..., 2] = 255
    picture = cv2.imencode(".png", red)[1].tobytes()
    (folder / "red.png").write_bytes(picture)
    (folder / "more").mkdir()
    (folder / "more" / "turned.png").write_bytes(cv2.imencode(".png", red[..., ::-1])[1].tobytes())
    walk = cv2.VideoWriter(str(folder / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 32))
    walk.write(red[:32, :30].repeat(2, axis=1)[:, :32])
    walk.release()
    (folder / "labels.txt").write_text("red\ngreen\nblue\ndark\n")
    write_pair(generate(), folder / "vendor.key", folder / "vendor.pub")
    for form, model in models.items():
        golden = _golden(artefacts / f"tiny.{form}", picture)
        artefact = folder / f"tiny.{form}"
        artefact.write_bytes(seal(form, model, contracts[form], golden))
        drift_references.write_for(artefact, folder, folder / f"tiny.{form}.npz")
    return folder


def _golden(path: Path, picture: bytes) -> Golden:
    step = walk(Classifier.open(path), picture)
    row = step.outputs[None]
    return Golden(
        images=(picture,),
        pixels=step.pixels[None],
        tensors=step.tensor[None],
        reference=row,
        recorded=row,
        exact=np.zeros((0, 0), np.int8),
        ids=np.array([step.id]),
        confidence=np.array([step.confidence], np.float32),
    )


# Each command of the runtime with what it is given in the folder above.
RUNTIME = {
    "classify": ["tiny.tflite", "red.png"],
    "watch": ["tiny.tflite", "--video", "walk.avi"],
    "verify": ["tiny.tflite"],
    "drift": [
        "tiny.tflite",
        *("--images", "."),
        *("--against", "tiny.tflite.npz"),
        *("--min-agreement", ".1", "--jobs", "2"),
    ],
    "calibrate": [
        *("tiny.tflite", "--images", ".", "--second", "tiny.tflite"),
        *("--against", "tiny.tflite.npz", "--agree", ".1"),
    ],
    "bench": ["tiny.tflite", "red.png", "--rounds", "2"],
    "seal": [
        "tiny.tflite",
        *("--reseal", "--labels", "labels.txt", "--preprocess", "image_dataset"),
        *("--normalisation", "tf", "--head", "logits"),
    ],
    "fetch": ["tiny.tflite", "--updates", "more", "--state", "."],
    "sign": ["tiny.tflite", "--key", "vendor.key"],
    "keygen": ["tiny.tflite"],  # the name of the pair: tiny.tflite.key, tiny.tflite.pub
    "doctor": [],
    "completion": ["bash"],
}


def test_no_command_of_the_runtime_is_left_out() -> None:
    ours = {name for name, (home, _) in COMMANDS.items() if home.startswith("kedge_runtime.")}
    # A server has no end: tests/test_serve.py.
    assert ours == {*RUNTIME, "serve"}


@pytest.mark.parametrize("name", RUNTIME)
@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_every_command_of_the_runtime_works_alone(sealed: Path, name: str, form: str) -> None:
    words = [word.replace("tiny.tflite", f"tiny.{form}") for word in RUNTIME[name]]
    places = [sealed / word if (sealed / word).exists() else word for word in words]
    # A file, not -c: the processes that bench starts run it too, and are as blocked.
    script = sealed / "alone.py"
    script.write_text(BLOCK + RUN)
    machine = [] if name == "completion" else ["--json"]  # what it prints is a shell's
    command = [sys.executable, "-W", "error", script, name, *places, *machine]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    # bench may find its figures doubtful on a busy machine, and says so on stderr.
    assert done.returncode == 0, done.stderr
    assert not machine or json.loads(done.stdout)["command"] == name
    assert done.stdout


# Extras of a device, which a command imports when it is asked for what they do.
EXTRAS = ("starlette", "uvicorn", "prometheus_client", "paho", "cryptography", "picamera2")


@pytest.mark.parametrize("name", [*RUNTIME, "serve"])
def test_every_commands_help_works_alone(name: str) -> None:
    block = BLOCK.replace(str(FOREIGN), str((*EXTRAS, *FOREIGN)))
    done = _python(block + RUN, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f" {name} [OPTIONS]" in done.stdout.splitlines()[0]


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
