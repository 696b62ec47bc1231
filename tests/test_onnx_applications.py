"""Every family of applications to ONNX: no less exact, no more nodes or bytes than by tf2onnx."""

import os
from pathlib import Path

import numpy as np
import pytest

import random_weights
from kedge_convert.export import onnx_routes, structure
from kedge_convert.export.onnx_routes import EQUAL, ROUTES
from kedge_convert.prepare.graph import trace
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_models.cards import card
from kedge_runtime.artefact.contract import Geometry, Input, Output

pytest.importorskip("tf2onnx", reason="the converter needs keras-kedge[convert]")
pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow

# A name of a card of each family, and a size that it takes: layers are as many at any size.
SIZES = {
    "MobileNet-0.25": 96,
    "MobileNetV2": 96,
    "MobileNetV3Small": 96,
    "EfficientNetB0": 96,
    "EfficientNetV2B0": 96,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "DenseNet121": 64,
    "InceptionV3": 96,
    "InceptionResNetV2": 96,
    "Xception": 96,
    "NASNetMobile": 224,
    "ConvNeXtTiny": 64,
}
NOISE = 8  # images
# Sums in another order: the deepest ones differ from Keras by more than EQUAL on any route.
DEEP = 3e-5


def source_of(name: str) -> Source:
    """Return an application with random weights as a source.

    They are settled on noise: weights that are merely random make some networks so steep that
    float32's own rounding shows in the second digit.
    """
    require("keras").utils.set_random_seed(6)
    found, size = card(name), SIZES[name]
    model = random_weights.build(found, size)
    given = Input(Geometry(size, size), found.normaliser())
    source = Source(name, model, given, Output("logits"), (), "sha256:0")
    random_weights.initialise(trace(model), np.concatenate(structure.probes(source, NOISE)))
    return source


# One of each kind in every run; all of them take ten minutes (KEDGE_APPLICATIONS=all).
USUAL = ("MobileNet-0.25", "MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny")
NAMES = tuple(SIZES) if os.environ.get("KEDGE_APPLICATIONS") == "all" else USUAL


@pytest.mark.parametrize("name", NAMES)
def test_the_writer_is_no_worse_than_tf2onnx(name: str, tmp_path: Path) -> None:
    source = source_of(name)
    direct = onnx_routes.checked(ROUTES["direct"], source, tmp_path)
    judge = onnx_routes.checked(ROUTES["through TFLite"], source, tmp_path)
    assert direct.error <= max(judge.error, DEEP - EQUAL) + EQUAL
    assert direct.nodes <= judge.nodes
    assert len(direct.content) <= len(judge.content)
