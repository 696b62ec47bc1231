"""onnxruntime fuses the int8 file of the writer as well as tf2onnx's, and it answers the same."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import families
from kedge_convert.export import onnx_routes, onnx_static
from kedge_convert.export.onnx_graph import INPUT, OUTPUT
from kedge_convert.export.onnx_routes import ROUTES
from kedge_convert.images import tensors
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Geometry

pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow

MODELS = ("mobilenet_0.25_224", "mobilenet_v2_1.0_224", "efficientnet_lite0_224")
CALIBRATION, OTHERS = 20, 60
# Operators that only move numbers, or change their type.
MOVES = {"DequantizeLinear", "Flatten", "QuantizeLinear", "Reshape", "Squeeze", "Transpose"}


def int8(content: bytes, images: list[Floats]) -> bytes:
    """Return the int8 file by the ranges of all values on the images."""
    floats = onnx_static.folded(content)
    return onnx_static.quantise(floats, onnx_static.minmax(floats, images))


def left_float(content: bytes, folder: Path) -> Counter[str]:
    """Return the operators that compute in float once onnxruntime has fused what it can."""
    runtime, path = require("onnxruntime"), folder / "fused.onnx"
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    runtime.InferenceSession(content, options)
    kinds = [node.op_type for node in require("onnx").load(path).graph.node]
    return Counter(k for k in kinds if k not in MOVES and not k.startswith(("QLinear", "QGemm")))


def answers(content: bytes, images: list[Floats]) -> Floats:
    """Return the logits, [images, classes]."""
    session: Any = require("onnxruntime").InferenceSession(content)
    return np.concatenate([session.run([OUTPUT], {INPUT: each})[0] for each in images])


def source_of(name: str, shared: Path) -> Source:
    """Return a real model as a source."""
    model = require("keras").models.load_model(shared / f"data/models/{name}.keras", compile=False)
    taken = replace(families.SPEC, geometry=Geometry(*model.inputs[0].shape[1:3]))
    return replace(families.source_of(model), input=taken)


@pytest.mark.parametrize("name", MODELS)
def test_int8_is_fused_and_answers_as_behind_tf2onnx(
    name: str, shared: Path, tmp_path: Path
) -> None:
    source = source_of(name, shared)
    photos = sorted((shared / "data/images").iterdir())[: CALIBRATION + OTHERS]
    images = list(tensors(photos, source.input))
    calibration, others = images[:CALIBRATION], images[CALIBRATION:]
    floats = {
        route: onnx_routes.checked(ROUTES[route], source, tmp_path)
        for route in ("direct", "through TFLite")
    }
    made = {route: int8(each.content, calibration) for route, each in floats.items()}
    direct, judge = (left_float(each, tmp_path) for each in made.values())
    assert direct <= judge
    assert len(made["direct"]) <= len(made["through TFLite"])
    reference = answers(floats["direct"].content, others).argmax(axis=1)
    ours, theirs = (answers(each, others).argmax(axis=1) == reference for each in made.values())
    assert abs(ours.mean() - theirs.mean()) <= 0.02
