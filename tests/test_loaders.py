"""Files for programs that load them with code of their own: Frigate, MediaPipe (docs/edge.md)."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import MODELS, tiny_contract
from kedge_convert.device import loader, loader_fit
from kedge_convert.device.fit import fit
from kedge_convert.export import activation, tflite_static
from kedge_convert.export.exported import PLAIN, Scheme
from kedge_convert.toolkit import ConversionError, require
from kedge_models.demo import pictograms, shapes
from kedge_models.devices import device
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Contract, Label, Normalisation, Output, Quantisation
from kedge_runtime.artefact.contract import Tensor as Io
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.artefact.kinds import Activation
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.classify.results import ACTIVATIONS
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.image.preprocessing import dequantise
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.output import quiet

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SAMPLES = sorted((Path(pictograms.__file__).parent / "samples").glob("*.jpg"))
STEP = 1 / 256  # of probabilities in 8 bits


def run(content: bytes, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Return an engine's numbers for a tensor."""
    with quiet():
        engine = open_engine(ModelContent(Path("a.tflite"), "tflite", content))
    numbers: NDArray[np.float32] = dequantise(engine.run(inputs), engine.output)[0]
    return numbers


# -- the activation in the file -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_the_activation_follows_the_logits_of_a_file(name: Activation) -> None:
    content = (MODELS / "tiny.tflite").read_bytes()
    images = np.random.default_rng(0).integers(-128, 128, (8, 1, 16, 16, 3), np.int8)
    after = activation.append(content, name)
    for image in images:
        expected = ACTIVATIONS[name](run(content, image))
        np.testing.assert_allclose(run(after, image), expected, atol=STEP)


def test_the_activation_of_floats_has_no_steps() -> None:
    content = (MODELS / "float.tflite").read_bytes()
    with quiet():
        engine = open_engine(ModelContent(Path("a.tflite"), "tflite", content))
    assert engine.output.dtype == "float32"
    shape = require("ai_edge_litert.interpreter").Interpreter(model_content=content)
    (taken,) = shape.get_input_details()
    image = np.random.default_rng(0).uniform(-1, 1, taken["shape"]).astype(np.float32)
    expected = ACTIVATIONS["softmax"](run(content, image))
    np.testing.assert_allclose(run(activation.append(content, "softmax"), image), expected, 1e-5)


def test_a_signature_names_the_probabilities() -> None:
    litert = require("ai_edge_litert.interpreter")
    content = activation.append((MODELS / "float.tflite").read_bytes(), "softmax")
    interpreter = litert.Interpreter(model_content=content)
    (last,) = interpreter.get_output_details()
    assert last["name"] == activation.NAME
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        assert [each["name"] for each in runner.get_output_details().values()] == [activation.NAME]


def test_sixteen_bits_have_no_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(activation.STEPS, "INT8")
    with pytest.raises(ConversionError, match="no softmax of int8: allowed are float32"):
        activation.append((MODELS / "tiny.tflite").read_bytes(), "softmax")


# -- the steps of the input -----------------------------------------------------------------------


@pytest.mark.parametrize(("span", "scale"), [(None, 0.2 / 255), ((-1.0, 1.0), 2 / 255)])
def test_the_input_has_a_step_for_each_byte_whatever_the_calibration_images(
    span: tuple[float, float] | None, scale: float
) -> None:
    content = (MODELS / "float.tflite").read_bytes()
    interpreter = require("ai_edge_litert.interpreter").Interpreter(model_content=content)
    (taken,) = interpreter.get_input_details()
    random = np.random.default_rng(0)
    dull = [random.uniform(-0.1, 0.1, taken["shape"]).astype(np.float32) for _ in range(4)]
    ranges = tflite_static.minmax(content, dull)
    scheme = Scheme("uint8", "uint8", input_span=span)
    quantised = tflite_static.quantise(content, ranges, scheme=scheme)
    with quiet():
        engine = open_engine(ModelContent(Path("a.tflite"), "tflite", quantised))
    assert engine.input.quantisation is not None
    assert engine.input.quantisation.scale == pytest.approx(scale, rel=0.01)


@pytest.mark.parametrize(
    ("name", "normalisation", "span"),
    [
        ("frigate", NORMALISATIONS["tf"], (-1.0, 1.0)),
        ("frigate", NORMALISATIONS["raw"], (0.0, 255.0)),
        ("frigate", NORMALISATIONS["torch"], None),
        ("coral", NORMALISATIONS["tf"], None),
        ("mediapipe", NORMALISATIONS["tf"], None),
    ],
)
def test_the_span_of_bytes_is_for_programs_that_feed_them(
    name: str, normalisation: Normalisation, span: tuple[float, float] | None
) -> None:
    spec = replace(tiny_contract("tflite").input, normalisation=normalisation)
    assert loader.with_span(PLAIN, spec, device(name)) == replace(PLAIN, input_span=span)


# -- what the findings say ------------------------------------------------------------------------


def contract_for_frigate() -> Contract:
    """Return a contract that Frigate can serve."""
    tiny = tiny_contract("tflite")
    geometry = replace(tiny.input.geometry, height=224, width=224, resize="bilinear")
    fed = Io("uint8", Quantisation(2 / 255, 127))
    given = Io("uint8", Quantisation(STEP, 0))
    taken = replace(tiny.input, geometry=geometry, tensor=fed)
    return replace(tiny, input=taken, output=Output("softmax", given))


def states(contract: Contract) -> dict[str, str]:
    """Return the findings that aren't fine."""
    frigate = device("frigate").loader
    assert frigate is not None
    found = {name: check(contract, frigate) for name, check in loader_fit.CHECKS.items()}
    return {name: each.state for name, each in found.items() if each and each.state != "ok"}


def test_a_contract_that_frigate_serves_has_no_finding() -> None:
    assert states(contract_for_frigate()) == {}


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        ("output", {"kind": "logits"}, {"output": "problem"}),
        ("normalisation", Normalisation("bgr", 127.5, (1.0,) * 3), {"bytes": "problem"}),
        ("normalisation", Normalisation("rgb", 255.0), {"bytes": "problem"}),
        ("geometry", {"width": 192}, {"size": "problem"}),
        ("geometry", {"fit": "crop"}, {"pixels": "note"}),
        ("labels", (), {"labels": "problem"}),
    ],
)
def test_what_frigate_would_get_wrong_is_found(
    part: str, change: Any, expected: dict[str, str]
) -> None:
    good = contract_for_frigate()
    if part == "output":
        bad = replace(good, output=replace(good.output, **change))
    elif part == "labels":
        bad = replace(good, labels=change)
    else:
        old = getattr(good.input, part)
        new = replace(old, **change) if isinstance(change, dict) else change
        bad = replace(good, input=replace(good.input, **{part: new}))
    assert states(bad) == expected


def test_the_background_has_a_line_of_its_own() -> None:
    contract = replace(
        contract_for_frigate(),
        labels=(Label("1", "blue tit"), Label("2", "10 sparrows")),
        output=Output("softmax", Io("uint8", Quantisation(STEP, 0)), label_offset=1),
    )
    assert loader.label_lines(contract) == "background\nblue tit\n10 sparrows\n"


# -- Frigate --------------------------------------------------------------------------------------


class FrigateAlike:
    """What Frigate's processor does with a model's folder, by the same library calls.

    custom_classification.py at 03d0139 and load_labels of builtin.py (docs/edge.md).
    """

    def __init__(self, folder: Path) -> None:
        litert = require("ai_edge_litert.interpreter")
        with quiet():
            self.engine = litert.Interpreter(str(folder / "model.tflite"), num_threads=2)
            self.engine.allocate_tensors()
        self.taken, self.given = self.engine.get_input_details(), self.engine.get_output_details()
        lines = (folder / "labelmap.txt").read_text(encoding="utf-8").splitlines(keepends=True)
        self.labels = {i: line.strip() for i, line in enumerate(lines)}

    def answer(self, frame: NDArray[np.uint8]) -> tuple[str, float]:
        """Return the label and score of an I420 frame."""
        rgb = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_I420)
        tensor = np.expand_dims(cv2.resize(rgb, (224, 224)), axis=0)
        self.engine.set_tensor(self.taken[0]["index"], tensor)
        self.engine.invoke()
        numbers = self.engine.get_tensor(self.given[0]["index"])[0]
        shares = numbers / numbers.sum(axis=0)
        best = int(np.argmax(shares))
        score = round(shares[best], 2)
        json.dumps({"sub_label": self.labels[best], "score": score})
        return self.labels[best], float(score)


@pytest.fixture(scope="module")
def frigate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the demo lies, converted for Frigate from a model of 224 x 224 pixels."""
    keras = require("keras")
    folder = tmp_path_factory.mktemp("frigate")
    pictograms.write(folder / "pictures", 60, seed=7)
    demo = keras.models.load_model(Path(pictograms.__file__).parent / "demo.keras", compile=False)
    wide = keras.Sequential([keras.Input((224, 224, 3)), keras.layers.Resizing(96, 96), demo])
    wide.save(folder / "birds.keras")
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{each.name}\n" for each in shapes.LABELS))
    words = ["--labels", labels, "--normalisation", "tf", "--resize", "bilinear", "--fit"]
    words += ["stretch", "--calibrate", folder / "pictures", "--device", "frigate"]
    words += [
        "--calibrate-count",
        "30",
        "--check-count",
        "30",
        "--effort",
        "fast",
        "--no-exif",
        "--out",
        folder / "out",
    ]
    command = [sys.executable, "-m", "kedge_runtime.cli", "convert", folder / "birds.keras"]
    ran = subprocess.run(
        [*map(str, command), *map(str, words), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    (made,) = json.loads(ran.stdout)["artefacts"]
    assert made["folder"] == str(folder / "out" / "frigate" / "birds")
    return folder / "out"


@pytest.mark.slow
def test_frigate_answers_as_kedge(frigate: Path) -> None:
    neighbour = FrigateAlike(frigate / "frigate" / "birds")
    classifier = Classifier.open(frigate / "birds.int8.tflite")
    right = 0
    for sample in SAMPLES:
        pixels = classifier.read(sample)
        height, width = (side // 2 * 2 for side in pixels.shape[:2])
        even = np.ascontiguousarray(pixels[:height, :width])
        frame = np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420), np.uint8)
        label, score = neighbour.answer(frame)
        best = classifier(cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_I420)).best
        assert label == best.name
        # Two digits, the steps of the output, and a step of the input.
        assert score == pytest.approx(best.probability, abs=0.03)
        right += label == sample.stem.split("_")[0]
    assert right >= 9, "the demo was trained on crops, not on stretched images"


@pytest.mark.slow
def test_what_frigate_loads_is_the_artefact(frigate: Path) -> None:
    artefact = frigate / "birds.int8.tflite"
    assert (frigate / "frigate/birds/model.tflite").read_bytes() == artefact.read_bytes()
    contract = read_artefact(artefact).contract
    assert (contract.output.kind, contract.provenance.head) == ("softmax", "softmax")
    assert contract.output.tensor == Io("uint8", Quantisation(STEP, 0))
    assert fit(inspect(artefact), device("frigate")).fits


@pytest.mark.slow
def test_verify_holds_an_artefact_with_a_softmax(frigate: Path) -> None:
    command = [sys.executable, "-m", "kedge_runtime.cli", "verify"]
    ran = subprocess.run(
        [*command, str(frigate / "birds.int8.tflite")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "exact       ok" in ran.stdout
