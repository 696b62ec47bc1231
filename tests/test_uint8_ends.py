"""Integer models with uint8 input and output, as Coral and MediaPipe take them."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import nets
from kedge_convert.device.fit import fit
from kedge_convert.export.exported import ExportOptions, Scheme
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import tensors
from kedge_convert.quantise.ranges import Histogram, minmax
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_models.devices import device
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Geometry, Input, Label, Normalisation, Output
from kedge_runtime.artefact.file import Artefact, seal
from kedge_runtime.artefact.golden import Golden
from kedge_runtime.artefact.kinds import DType
from kedge_runtime.artefact.provenance import Provenance
from kedge_runtime.checks.verify import verify, walk
from kedge_runtime.classify.classifier import Classifier
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.image.preprocessing import Preprocessor, preprocess
from kedge_runtime.modelfile.report import inspect
from kedge_runtime.output import quiet

LABELS = tuple(Label(name, name) for name in ("red", "green", "blue", "dark"))
DTYPES: tuple[DType, ...] = ("int8", "uint8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tiny network sealed as `int8.tflite` and `uint8.tflite`."""
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    import make_models

    tf, made = require("tensorflow"), tmp_path_factory.mktemp("ends")
    model = make_models._network()
    for name in DTYPES:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = make_models._colours
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = getattr(tf, name)
        converter.inference_output_type = getattr(tf, name)
        with quiet():
            (made / f"{name}.tflite").write_bytes(converter.convert())
            _seal(made / f"{name}.tflite")
    return made


def _seal(path: Path) -> None:
    engine = open_engine(read_content(path), EngineOptions(kernels="reference"))
    taken = Input(
        Geometry(16, 16, fit="stretch"),
        Normalisation(divisor=127.5, mean=(1.0, 1.0, 1.0)),
        engine.input,
    )
    made = Provenance("tiny", "sha256:0", "int8", "tflite:int8")
    contract = Contract(taken, Output("logits", engine.output), LABELS, made)
    picture = _picture("blue")
    step = walk(Classifier(Artefact(path, contract, b"", ""), engine), picture)
    golden = Golden(
        images=(picture,),
        pixels=step.pixels[None],
        tensors=step.tensor[None],
        reference=step.outputs[None],
        recorded=step.outputs[None],
        exact=np.zeros((0, 0), np.int8),
        ids=np.array([step.id]),
        confidence=np.array([step.confidence], np.float32),
    )
    path.write_bytes(seal("tflite", path.read_bytes(), contract, golden))


def _picture(colour: str) -> bytes:
    rng = np.random.default_rng(0)
    pixels: NDArray[Any] = rng.integers(0, 60, (20, 30, 3), np.uint8)
    pixels[..., {"blue": 0, "green": 1, "red": 2}[colour]] += 150
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_uint8_is_int8_shifted_by_128(folder: Path, colour: str) -> None:
    picture, found = _picture(colour), {}
    for name in DTYPES:
        path = folder / f"{name}.tflite"
        with quiet():
            engine = open_engine(read_content(path), EngineOptions(kernels="reference"))
            contract = Classifier.open(path).contract
        tensor = preprocess(contract, picture)
        assert tensor.dtype == name
        found[name] = tensor.astype(int), engine.run(tensor).astype(int)
        with quiet():
            assert Classifier.open(path)(picture).label == colour
    for int8, uint8 in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(int8 + 128, uint8)


def _of_given_ranges(source: Source, scheme: Scheme, photos: list[Path]) -> bytes:
    found: dict[str, Histogram] = defaultdict(Histogram)
    floats = STATIC["tflite"].floats(source)
    pictures = tensors(photos, source.input)
    STATIC["tflite"].observe(floats, pictures, lambda name, value: found[name].add(value))
    return STATIC["tflite"].quantise(
        floats, {name: minmax(one) for name, one in found.items()}, scheme=scheme
    )


def _of_the_converter(source: Source, scheme: Scheme, photos: list[Path]) -> bytes:
    content: bytes = (
        FORMATS["tflite"].export(source, "int8", ExportOptions(tuple(photos), scheme)).content
    )
    return content


@pytest.mark.parametrize("quantise", [_of_given_ranges, _of_the_converter])
def test_uint8_ends_change_no_answer(
    quantise: Callable[[Source, Scheme, list[Path]], bytes], pictures: Path, tmp_path: Path
) -> None:
    photos = sorted(pictures.iterdir())[:12]
    spec = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))
    source, found = Source("mobile", nets.make("mobile"), spec, Output(), (), ""), {}
    for name in DTYPES:
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(quantise(source, Scheme(name, name), photos))
        engine = open_engine(read_content(path), EngineOptions(kernels="reference"))
        plan = Preprocessor(replace(spec, tensor=engine.input))
        answers = [engine.run(plan.tensor(plan.read(photo))) for photo in photos]
        assert {each.dtype.name for each in answers} == {name}
        found[name] = np.stack(answers).astype(int)
    np.testing.assert_array_equal(found["int8"] + 128, found["uint8"])
    assert len(np.unique(found["int8"])) > 10


def test_uint8_verifies(folder: Path) -> None:
    with quiet():
        stages = verify(folder / "uint8.tflite", EngineOptions())
    assert [stage.name for stage in stages if not stage.passed] == []


def test_coral_takes_both_and_prefers_uint8(folder: Path) -> None:
    assert device("coral").inputs[0] == "uint8"
    for name in DTYPES:
        path = folder / f"{name}.tflite"
        verdict = fit(inspect(path), device("coral"))
        assert verdict.findings["I/O dtype"].detail == f"input {name}; output {name}"
        assert verdict.findings["I/O dtype"].state == "ok"
