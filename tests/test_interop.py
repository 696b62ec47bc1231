"""kedge's files in other people's programs: MediaPipe, LiteRT, onnxruntime, OpenCV, Netron."""

import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

import peers
from kedge_convert.export.tflite import describe
from kedge_models.demo import pictograms
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Geometry, Input, Label, Output
from kedge_runtime.artefact.file import read_artefact, seal
from kedge_runtime.artefact.foreign import complete, unsealed
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.image.preprocessing import preprocess
from kedge_runtime.modelfile.network import read_network
from kedge_runtime.modelfile.report import model_end
from kedge_runtime.output import quiet
from mediapipe_agreement import as_input, scores

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SAMPLES = sorted((Path(pictograms.__file__).parent / "samples").glob("*.jpg"))
PHOTOS = 20  # of the shared ones; benchmarks/mediapipe_agreement.py takes a hundred


@pytest.fixture(scope="session")
def environment() -> None:
    """Have MediaPipe and Netron at hand, or skip."""
    try:
        peers.python()
    except peers.PeersError as error:
        pytest.skip(f"no environment for MediaPipe and Netron: {error}")


@pytest.fixture(scope="session")
def coral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the demo with uint8 ends."""
    folder = tmp_path_factory.mktemp("coral")
    words = ["demo", "--to", "tflite:int8", "--device", "coral", "--effort", "fast"]
    command = [sys.executable, "-m", "kedge_runtime.cli", "convert", *words, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "demo.int8.tflite"


def agree(path: Path) -> None:
    """Assert that MediaPipe gives kedge's labels, and its engine's numbers, for square pictures.

    The numbers are asked with the input that MediaPipe builds: it puts bytes into uint8 inputs as
    they are, and normalises by another order of the same steps.
    """
    classifier = Classifier.open(path)
    plan = classifier.preprocessor
    fitted = [plan.fit(plan.read(sample)) for sample in SAMPLES]
    answers = peers.classify(path, fitted)
    names = [each[0]["name"] for each in answers]
    assert names == [sample.stem.split("_")[0] for sample in SAMPLES]
    assert names == [classifier(sample).best.name for sample in SAMPLES]
    ran = [classifier.engine.run(as_input(classifier, each)) for each in fitted]
    numbers = [classifier.numbers(each) for each in ran]
    np.testing.assert_allclose(scores(answers), numbers, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_mediapipe_answers_as_kedge(
    environment: None, demo_artefacts: Path, precision: str
) -> None:
    agree(demo_artefacts / f"demo.{precision}.tflite")


@pytest.mark.slow
def test_mediapipe_answers_as_kedge_with_uint8_ends(environment: None, coral: Path) -> None:
    assert Classifier.open(coral).contract.input.tensor.dtype == "uint8"
    agree(coral)


@pytest.mark.slow
def test_mediapipe_scores_are_probabilities_of_its_own_profile(
    environment: None, tmp_path: Path
) -> None:
    words = ["demo", "--to", "tflite:int8", "--device", "mediapipe", "--effort", "fast"]
    command = [sys.executable, "-m", "kedge_runtime.cli", "convert", *words, "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    path = tmp_path / "demo.int8.tflite"
    classifier = Classifier.open(path)
    contract = classifier.contract
    assert (contract.output.kind, contract.output.tensor.dtype) == ("softmax", "float32")
    agree(path)
    plan = classifier.preprocessor
    answers = peers.classify(path, [plan.fit(plan.read(sample)) for sample in SAMPLES])
    for answer, sample in zip(answers, SAMPLES, strict=True):
        probability = classifier(sample).best.probability
        # Its normalisation rounds otherwise, which moves bytes by a step of int8.
        assert answer[0]["score"] == pytest.approx(probability, abs=0.01)
        assert sum(each["score"] for each in answer) == pytest.approx(1, abs=1e-4)


def test_mediapipe_takes_no_int8_input(environment: None, demo_artefacts: Path) -> None:
    with pytest.raises(peers.PeersError, match="types: uint8/float32, got INT8"):
        peers.classify(demo_artefacts / "demo.int8.tflite", [np.zeros((96, 96, 3), np.uint8)])


def test_mediapipe_refuses_a_normalisation_per_channel(
    environment: None, demo_artefacts: Path, tmp_path: Path
) -> None:
    artefact = read_artefact(demo_artefacts / "demo.float32.tflite")
    taken = replace(artefact.contract.input, normalisation=NORMALISATIONS["torch"])
    contract = replace(artefact.contract, input=taken)
    sealed = artefact.path.read_bytes()
    model = sealed[: model_end(sealed)]
    path = tmp_path / "torch.tflite"
    described = describe(model, contract)
    path.write_bytes(seal("tflite", described.content, contract, Golden.none()))
    assert described.notes == ()
    with pytest.raises(peers.PeersError, match="Per-channel image normalization is not available"):
        peers.classify(path, [np.zeros((96, 96, 3), np.uint8)])


@pytest.fixture
def public(shared: Path, tmp_path: Path) -> Path:
    """Return Coral's public MobileNetV2, uint8 ends and softmax, sealed by kedge."""
    folder = shared / "data" / "edgetpu"
    lines = (folder / "imagenet_labels.txt").read_text().splitlines()
    taken = Input(Geometry(224, 224), NORMALISATIONS["tf"])
    facts = Contract(taken, Output("softmax"), tuple(Label(line, line) for line in lines))
    model = folder / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    contract = complete(
        unsealed(read_content(model), facts), open_engine(read_content(model))
    ).contract
    described = describe(model.read_bytes(), contract)
    path = tmp_path / "public.tflite"
    path.write_bytes(seal("tflite", described.content, contract, Golden.none()))
    return path


@pytest.mark.slow
def test_mediapipe_names_photos_as_kedge(environment: None, public: Path, shared: Path) -> None:
    photos = sorted((shared / "data" / "images").iterdir())[:: 500 // PHOTOS]
    classifier = Classifier.open(public)
    fitted = [classifier.preprocessor.fit(classifier.preprocessor.read(each)) for each in photos]
    found = [each[0]["name"] for each in peers.classify(public, fitted)]
    assert len(found) == PHOTOS
    ours = [classifier(each).best.name for each in photos]
    assert sum(map(str.__eq__, found, ours)) >= 0.95 * PHOTOS


def test_plain_litert_runs_a_sealed_file(demo_artefacts: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    path = demo_artefacts / "demo.int8.tflite"
    with quiet():
        interpreter = litert.Interpreter(str(path))
        interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    classifier = Classifier.open(path)
    for sample in SAMPLES:
        interpreter.set_tensor(taken["index"], preprocess(classifier.contract, sample))
        interpreter.invoke()
        scale, zero = given["quantization"]
        logits = (interpreter.get_tensor(given["index"])[0].astype(np.float32) - zero) * scale
        np.testing.assert_allclose(logits, classifier.outputs(sample), atol=scale)


def test_plain_onnxruntime_runs_a_sealed_file(demo_artefacts: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    for name in ("float32", "int8"):
        path = demo_artefacts / f"demo.{name}.onnx"
        settings = onnxruntime.SessionOptions()
        # As docs/interop.md tells: without VNNI, int8 saturates on x86 by default.
        settings.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        classifier = Classifier.open(path)
        for sample in SAMPLES:
            tensor = preprocess(classifier.contract, sample)
            (logits,) = session.run(["logits"], {"input": tensor})
            np.testing.assert_allclose(logits[0], classifier.outputs(sample), atol=1e-4)


def test_plain_opencv_runs_a_sealed_float_file(demo_artefacts: Path) -> None:
    path = demo_artefacts / "demo.float32.onnx"
    classifier = Classifier.open(path, engine="onnxruntime")
    with quiet():
        network = cv2.dnn.readNetFromONNX(str(path))
    for sample in SAMPLES:
        network.setInput(preprocess(classifier.contract, sample))
        np.testing.assert_allclose(network.forward()[0], classifier.outputs(sample), atol=1e-3)


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def _netron(folder: Path, model: Path) -> None:
    """Lay out Netron's page so that it opens the model: no question, no word to its makers."""
    for part in peers.folder_of("netron").iterdir():
        (folder / part.name).symlink_to(part)
    (folder / model.name).symlink_to(model)
    page = folder / "index.html"
    text = re.sub(r'<meta name="(version|date)".*?>', "", page.read_text(encoding="utf-8"))
    said = {"version": "0.0.0", "file": f"/{model.name}", "name": model.name}
    metas = "".join(f'<meta name="{name}" content="{value}">' for name, value in said.items())
    page.unlink()
    page.write_text(text.replace("<head>", f'<head>{metas}<script src="agreed.js"></script>'))
    (folder / "agreed.js").write_text("document.cookie = 'consent=1'")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_netron_draws_every_operator(
    environment: None, demo_artefacts: Path, tmp_path: Path, form: str
) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on PATH: apt install chromium")
    model = demo_artefacts / f"demo.float32.{form}"
    (tmp_path / "page").mkdir()
    _netron(tmp_path / "page", model)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    with _served(tmp_path / "page") as address:
        command = [browser, *options, profile, "--dump-dom", address]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    drawn = re.findall(r'class="node graph-node"', ran.stdout)
    assert len(drawn) == len(read_network(read_content(model)).operators)
