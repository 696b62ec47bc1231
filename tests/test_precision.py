"""Models that were trained in mixed precision compute in float32, with the same weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.export.formats import FORMATS
from kedge_convert.load.for_inference import in_float32
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import load_source
from kedge_convert.toolkit import require
from kedge_runtime.classify.results import probabilities
from kedge_runtime.image.input_options import InputOptions


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")
    return require("keras")


def nested(keras: Any, policy: str, last: str) -> Any:
    """Return a classifier with nested models, one of them called twice, and operations."""
    layers = keras.layers
    body = keras.Sequential(
        [
            keras.Input((None, None, 4), dtype="float32"),
            layers.Conv2D(4, 3, padding="same", dtype=policy),
            layers.BatchNormalization(dtype=policy),
        ]
    )
    picture = keras.Input((8, 8, 3))
    value = layers.Conv2D(4, 3, activation="relu", dtype=policy)(picture / 255.0)
    half = keras.Input((6, 6, 4))
    inner = keras.Model(half, layers.GlobalAveragePooling2D(dtype=policy)(body(half) * 2.0))
    ends = [inner(value), inner(value * 2.0)]
    value = layers.Dropout(0.1, dtype=policy)(layers.Concatenate(dtype=policy)(ends))
    return keras.Model(picture, layers.Dense(5, "softmax", dtype=last)(value))


def sequential(keras: Any, policy: str, last: str) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 255, dtype=policy),
            layers.Conv2D(4, 3, dtype=policy),
            layers.Flatten(dtype=policy),
            layers.Dense(5, "softmax", dtype=last),
        ]
    )


# The policy, that of the last layer -> what is said.
POLICIES = {
    "mixed_float16, float32": "computed in float32 (was mixed_float16)",
    "mixed_float16, mixed_float16": "computed in float32 (was mixed_float16)",
    "mixed_bfloat16, float32": "computed in float32 (was mixed_bfloat16)",
    "float16, mixed_float16": "computed in float32 (was float16, mixed_float16)",
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("make", [nested, sequential])
def test_other_floats_are_computed_in_float32(
    keras: Any, tmp_path: Path, make: Callable[..., Any], name: str
) -> None:
    policy, last = name.split(", ")
    model = make(keras, policy, last)
    model.save(tmp_path / "mine.keras")
    (tmp_path / "labels").write_text("one\ntwo\nthree\nfour\nfive\n")
    request = SourceRequest(
        str(tmp_path / "mine.keras"),
        pixels=InputOptions("imagenet"),
        labels=str(tmp_path / "labels"),
    )
    source = load_source(request)
    assert POLICIES[name] in source.notes
    assert {each.compute_dtype for each in source.model._flatten_layers()} == {"float32"}
    for new, old in zip(source.model.get_weights(), model.get_weights(), strict=True):
        assert new.dtype == np.float32
        np.testing.assert_array_equal(new, old.astype(np.float32))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
    found = probabilities(source.logits(picture[None] for picture in pixels), source.output)
    np.testing.assert_allclose(found, np.asarray(model(pixels), np.float32), atol=2e-2)


def test_a_mixed_model_is_exported(keras: Any, tmp_path: Path) -> None:
    nested(keras, "mixed_float16", "mixed_float16").save(tmp_path / "mine.keras")
    (tmp_path / "labels").write_text("one\ntwo\nthree\nfour\nfive\n")
    request = SourceRequest(
        str(tmp_path / "mine.keras"),
        pixels=InputOptions("imagenet"),
        labels=str(tmp_path / "labels"),
    )
    exported = FORMATS["tflite"].export(load_source(request), "float32")
    assert exported.content


def test_a_model_of_float32_is_left_alone(keras: Any) -> None:
    model = nested(keras, "float32", "float32")
    assert in_float32(model) == (model, ())
