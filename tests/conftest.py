"""What several test files share: the folder of real models and photos, two tiny artefacts, and for
the converter a tiny Keras model, its pictures and the command itself.

The tiny models are committed (`make_models.py` makes them) and sealed here, so that the runtime's
tests need neither TensorFlow nor onnx.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kedge_models.demo import pictograms
from kedge_runtime.artefact.contract import (
    Contract,
    Geometry,
    Input,
    Label,
    Normalisation,
    Output,
    Quantisation,
    Tensor,
)
from kedge_runtime.artefact.file import seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.provenance import Provenance
from kedge_runtime.artefact.signing import PrivateKey, generate, write_pair
from kedge_runtime.cli import main
from skips import pytest_make_collect_report, pytest_runtest_makereport

# Hooks, which pytest finds by name.
__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

TESTS = Path(__file__).parent
MODELS = TESTS / "models"
# What a whole run measured (tools/slow_tests.py).
SLOW = frozenset((TESTS / "slow.txt").read_text().splitlines())
PROOFS = frozenset((TESTS / "proofs.txt").read_text().splitlines())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they ask for: the shared folder, or a conversion to every target."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "shared" in names:
            item.add_marker("shared")
        measured = f"{item.path.name}::{item.name.partition('[')[0]}"
        if {"converted", "demo_artefacts"}.intersection(names) or measured in SLOW:
            item.add_marker("slow")
        if measured in PROOFS:
            item.add_marker("proof")
    items.sort(key=_turns(items))


def _turns(items: list[pytest.Item]) -> Callable[[pytest.Item], int]:
    """Return when a test's file is due, so that two processes are both at work to the end.

    First one of those that want the demo, which is converted then; the other process has slow files
    that don't; what is left for the end is short.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    demo = [item.path for item in items if "demo_artefacts" in getattr(item, "fixturenames", ())]

    def turn(item: pytest.Item) -> int:
        if item.path in demo:
            return 0 if item.path == demo[0] else 2
        return 1 if item.path in slow else 3

    return turn


@pytest.fixture(scope="session", autouse=True)
def plain_output() -> None:
    """Remove settings of the user's shell that change the width and the colours of output."""
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def warm_workers() -> None:
    """Fork the workers of conversions, where the converter is installed."""
    if find_spec("tensorflow"):
        import warm

        warm.use()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real models and photos, or skip."""
    folder = Path(os.environ.get("KEDGE_SHARED", TESTS.parent.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real models and photos: {folder / 'data'} is not there; set KEDGE_SHARED")
    return folder


def tiny_contract(form: str) -> Contract:
    """Return the contract of `models/tiny.<form>`, written by hand from `make_models.py`."""
    size, taken, given = {
        "onnx": (8, Tensor(), Tensor()),
        "tflite": (
            16,
            Tensor("int8", Quantisation(0.007843137718737125, -1)),
            Tensor("int8", Quantisation(0.0156862773001194, -128)),
        ),
    }[form]
    return Contract(
        input=Input(
            Geometry(size, size, resize="pyramid", fit="stretch"),
            Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)),
            taken,
        ),
        output=Output("logits", given),
        labels=tuple(Label(f"t{i}", n) for i, n in enumerate(("red", "green", "blue", "dark"))),
        provenance=Provenance("tiny", "sha256:0", "float32", f"{form}:float32"),
    )


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Return a golden set of two made-up pictures."""
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    digests, ids = np.zeros((2, 32), np.uint8), np.array(["t0", "t1"])
    sure = np.ones(2, np.float32)
    return Golden((b"first", b"second"), digests, digests, rows, rows + 1, rows, ids, sure)


@pytest.fixture(scope="session", params=["onnx", "tflite"])
def form(request: pytest.FixtureRequest) -> str:
    """Return each format in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def contracts() -> dict[str, Contract]:
    """Return the contracts of the tiny models by format."""
    return {form: tiny_contract(form) for form in ("onnx", "tflite")}


@pytest.fixture(scope="session")
def models() -> dict[str, bytes]:
    """Return the tiny models, unsealed, by format."""
    return {form: (MODELS / f"tiny.{form}").read_bytes() for form in ("onnx", "tflite")}


@pytest.fixture(scope="session")
def artefacts(
    tmp_path_factory: pytest.TempPathFactory,
    contracts: dict[str, Contract],
    models: dict[str, bytes],
    golden: Golden,
) -> Path:
    """Return a folder with the tiny models sealed: `tiny.onnx` and `tiny.tflite`."""
    folder = tmp_path_factory.mktemp("artefacts")
    for name, model in models.items():
        (folder / f"tiny.{name}").write_bytes(seal(name, model, contracts[name], golden))
    return folder


@pytest.fixture
def sealed_file(form: str, artefacts: Path, tmp_path: Path) -> Path:
    """Return a copy of a tiny sealed model."""
    return Path(shutil.copy(artefacts / f"tiny.{form}", tmp_path))


@pytest.fixture(scope="session")
def signing_key() -> PrivateKey:
    """Return a key, or skip without the library for it."""
    pytest.importorskip("cryptography", reason="signatures need keras-kedge[signing]")
    return generate()


@pytest.fixture
def key_pair(signing_key: PrivateKey, tmp_path: Path) -> Path:
    """Write the key's files; return their name without the suffix."""
    write_pair(signing_key, tmp_path / "mine.key", tmp_path / "mine.pub")
    return tmp_path / "mine"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of forty rendered pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    pictograms.write(folder, 40, seed=7)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Return `tiny.keras`: 32x32 pixels in -1..1, five classes, softmax; beside it `labels.txt`.

    Its weights are random; one pass over the pictures sets its batch norms, so that answers vary.
    """
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    from kedge_convert.images import tensors
    from kedge_convert.toolkit import require

    keras = require("keras")
    layers = keras.layers
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.0),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.0),
            layers.ReLU(),
            layers.Conv2D(16, 1),
            layers.GlobalAveragePooling2D(),
            layers.BatchNormalization(momentum=0.0),
            layers.Dense(5, activation="softmax"),
        ]
    )
    spec = Input(Geometry(32, 32), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))
    model(np.concatenate(list(tensors(sorted(pictures.iterdir()), spec))), training=True)
    path = tmp_path_factory.mktemp("keras") / "tiny.keras"
    model.save(path)
    path.with_name("labels.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    return path


@pytest.fixture(scope="session")
def demo_artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the demo converted to every target, once for all tests and processes.

    KEDGE_DEMO names one that was made before (`kedge convert demo --to all --out DIR`), to spare a
    minute while tests are written.
    """
    if "KEDGE_DEMO" in os.environ:
        return Path(os.environ["KEDGE_DEMO"])
    pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
    base = tmp_path_factory.getbasetemp()
    # What the processes of -n share lies above what each has.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo-of-all"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _convert_demo(folder)
    return folder


def _convert_demo(folder: Path) -> None:
    making = folder.with_suffix(".making")
    words = ["convert", "demo", "--to", "all", "--out", str(making)]
    command = [sys.executable, "-m", "kedge_runtime.cli", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    making.rename(folder)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kedge(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return the command `kedge`, run in this process: arguments -> (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kedge", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Return a label file for the tiny models."""
    from foreign_files import NAMES

    path = tmp_path / "labels.txt"
    path.write_text(NAMES)
    return path


@pytest.fixture
def foreign(tmp_path: Path, form: str, models: dict[str, bytes]) -> Path:
    """Return a tiny model as another program wrote it, of each format in turn."""
    path = tmp_path / f"foreign.{form}"
    path.write_bytes(models[form])
    return path


@pytest.fixture
def sealed(foreign: Path, labels: Path, kedge: Run) -> Path:
    """Return a tiny model that `kedge seal` sealed."""
    from foreign_files import WORDS

    code, _, err = kedge("seal", foreign, "--labels", labels, *WORDS)
    assert (code, err) == (0, "")
    return foreign.with_name(f"foreign.sealed{foreign.suffix}")
