"""Every target of small nets of each family: it runs, is near, and is the same bytes again."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import families
from kedge_convert.export import flatbuffer, onnx_routes, structure
from kedge_convert.export.onnx import opened
from kedge_convert.export.onnx_routes import ROUTES
from kedge_convert.targets import TARGETS, Target
from kedge_convert.toolkit import ConversionError, require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.image.preprocessing import Preprocessor, dequantise
from kedge_runtime.output import quiet

onnx: Any = pytest.importorskip("onnx", reason="the converter needs keras-kedge[convert]")
pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow

# Largest error as a share of the largest logit. Random weights forgive integers less than trained.
NEAR = {"float32": 1e-5, "float16": 1e-2, "dynamic": 0.1, "int8": 0.3, "int16x8": 0.1}
# What int16x8 writes out; the others need nothing.
NOTES = {
    "convnext": ("LayerNormalization written out in plainer operators (2x)",),
    "mobilenet_v3": ("hard_silu written out in plainer operators (1x)",),
    "resnet_v2": ("Negative written out in plainer operators (1x)",),
}


def logits(family: str, form: str, content: bytes, pictures: Path) -> tuple[Floats, Floats]:
    """Return the logits on rendered pictures of a file and of Keras."""
    source = families.source(family)
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / f"it.{form}"
        path.write_bytes(content)
        engine = open_engine(read_content(path))
    plan = Preprocessor(replace(source.input, tensor=engine.input))
    plain = Preprocessor(source.input)
    # Calibrated on these too: it is the arithmetic that is looked at, not what clipping costs.
    paths = sorted(pictures.iterdir())[: families.CALIBRATION]
    pixels = [plan.fit(plan.read(path)) for path in paths]
    found = [dequantise(engine.run(plan.look_up(each)), engine.output) for each in pixels]
    return np.concatenate(found), source.logits(plain.look_up(each) for each in pixels)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_target_of_every_family(family: str, target: Target, pictures: Path) -> None:
    made = families.exported(family, target, pictures)
    found, expected = logits(family, target.format, made.content, pictures)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error <= NEAR[target.precision]
    assert made.notes == (NOTES.get(family, ()) if target.precision == "int16x8" else ())


@pytest.mark.parametrize("family", ["convnext", "mobilenet_v3"])
def test_another_process_makes_the_same_bytes(family: str, pictures: Path) -> None:
    """Also one that has exported another model before. The hash seed is the worker's."""
    folder = str(Path(families.__file__).parent)
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": folder}
    answers = []
    for order in ([family], ["vgg", family]):
        command = [sys.executable, families.__file__, str(pictures), *order]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert ran.returncode == 0, ran.stderr
        answers.append(json.loads(ran.stdout))
    assert answers[0] == answers[1]
    assert len(set(answers[0].values())) == len(TARGETS)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_route_to_onnx_gives_a_sound_model(family: str, route: str, tmp_path: Path) -> None:
    source = families.source(family)
    made = onnx_routes.checked(ROUTES[route], source, tmp_path)
    graph = onnx.load_from_string(made.content).graph
    assert [len(graph.node), graph.input[0].name, graph.output[0].name] == [
        made.nodes,
        "input",
        "logits",
    ]


def test_of_equally_exact_routes_that_with_fewer_nodes_is_taken(tmp_path: Path) -> None:
    source = families.source("mobilenet_v3")
    counts = [onnx_routes.checked(route, source, tmp_path).nodes for route in ROUTES.values()]
    chosen = onnx.load_from_string(onnx_routes.float32(source)).graph
    assert len(chosen.node) == min(counts) < max(counts)


def test_a_route_that_fails_leaves_it_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    source = replace(families.source("vgg"), model=families.source.__wrapped__("vgg").model)
    monkeypatch.setitem(ROUTES, "direct", lambda source, folder: 1 / 0)
    assert onnx.load_from_string(onnx_routes.float32(source)).graph.node


def test_no_route_is_one_line_that_names_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    source = replace(families.source("vgg"), model=families.source.__wrapped__("vgg").model)
    for name in ROUTES:
        monkeypatch.setitem(ROUTES, name, lambda source, folder: 1 / 0)
    with pytest.raises(
        ConversionError, match=r"vgg: no route to ONNX: .*by zero; .*by zero; .*by zero$"
    ):
        onnx_routes.float32(source)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.format == "onnx"], ids=str)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_an_open_batch_gives_the_answers_one_by_one(
    family: str, target: Target, pictures: Path
) -> None:
    source, made = families.source(family), families.exported(family, target, pictures)
    session = require("onnxruntime").InferenceSession(opened(made, source).content)
    assert session.get_inputs()[0].shape == ["batch", families.SIDE, families.SIDE, 3]
    assert session.get_outputs()[0].shape == ["batch", 5]
    together = np.concatenate(structure.probes(source, 3))
    (answers,) = session.run(["logits"], {"input": together})
    plain = require("onnxruntime").InferenceSession(made.content)
    single = [plain.run(["logits"], {"input": each[None]})[0] for each in together]
    np.testing.assert_allclose(answers, np.concatenate(single), atol=1e-4)


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_float16_stores_kernels_and_nothing_else_as_halves(form: str, pictures: Path) -> None:
    made = families.exported("convnext", Target(form, "float16"), pictures)
    shapes = HALVES[form](made.content)
    # The stem, the two dense layers of the block and the head; not the depthwise 7x7.
    assert sorted(int(np.prod(shape)) for shape in shapes) == [80, 768, 1024, 1024]


def _tflite_halves(content: bytes) -> list[tuple[int, ...]]:
    kind = flatbuffer.schema().TensorType.FLOAT16
    tensors = flatbuffer.unpack(content).subgraphs[0].tensors
    return [flatbuffer.shape(each) for each in tensors if each.type == kind]


def _onnx_halves(content: bytes) -> list[tuple[int, ...]]:
    weights = onnx.load_from_string(content).graph.initializer
    return [tuple(each.dims) for each in weights if each.data_type == onnx.TensorProto.FLOAT16]


HALVES = {"tflite": _tflite_halves, "onnx": _onnx_halves}
