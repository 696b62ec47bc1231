"""The routes to ONNX: what each must not lose, and which of them is taken."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import families
from kedge_convert.export import onnx_routes
from kedge_convert.export.onnx_program import writing
from kedge_convert.export.onnx_program.writing import Written
from kedge_convert.export.onnx_routes import ROUTES, Route, RoutedModel
from kedge_convert.memory import StoredBytes
from kedge_convert.source import Source
from kedge_convert.toolkit import require

onnx: Any = pytest.importorskip("onnx", reason="the converter needs keras-kedge[convert]")
pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow


def _pooled(layers: Any, value: Any) -> Any:
    return layers.Dense(5)(layers.Flatten()(layers.AveragePooling2D(16)(value)))


def _many_classes(layers: Any, value: Any) -> Any:
    """As many biases as are hidden from tf2onnx."""
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(value)
    return layers.Dense(300)(layers.Flatten()(pooled))


def _activated(layers: Any, value: Any) -> Any:
    hidden = layers.Dense(8, activation="relu")(layers.Flatten()(layers.AveragePooling2D(8)(value)))
    return layers.Dense(5)(hidden)


def _spatial(layers: Any, value: Any) -> Any:
    return layers.Conv2D(8, 3, strides=2, activation="relu")(value)


ENDS = {
    "pooled": _pooled,
    "many classes": _many_classes,
    "an activation": _activated,
    "spatial features": _spatial,
}


def source(end: Callable[[Any, Any], Any]) -> Source:
    """Return a small net whose biases are as large as its logits."""
    keras = require("keras")
    keras.utils.set_random_seed(2)
    picture = keras.Input((families.SIDE, families.SIDE, 3))
    value = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(picture)
    model = keras.Model(picture, end(keras.layers, value), name="net")
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if weight.name == "bias":
            weight.assign(rng.uniform(-1, 1, weight.shape))
    return families.source_of(model)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("end", ENDS)
def test_no_route_loses_a_bias(end: str, route: str, tmp_path: Path) -> None:
    """tf2onnx dropped that of a FULLY_CONNECTED that TensorFlow gives four axes."""
    made = onnx_routes.checked(ROUTES[route], source(ENDS[end]), tmp_path)
    assert made.error < 1e-5


def test_an_exact_gelu_inside_a_layer_is_carried(tmp_path: Path) -> None:
    """TensorFlow computes it with Erfc; no lowering looks inside another library's layer."""
    keras: Any = require("keras")

    class Block(keras.layers.Layer):  # type: ignore[misc]
        def call(self, value: Any) -> Any:
            return keras.activations.gelu(value, approximate=False)

    picture = keras.Input((families.SIDE, families.SIDE, 3))
    value = keras.layers.GlobalAveragePooling2D()(Block()(keras.layers.Conv2D(8, 3)(picture)))
    net = families.source_of(keras.Model(picture, keras.layers.Dense(5)(value), name="net"))
    made = onnx_routes.checked(ROUTES["through the graph"], net, tmp_path)
    assert made.error < 1e-5


def test_a_mean_over_tokens_is_no_pooling_of_images(tmp_path: Path) -> None:
    """onnxruntime's integer pooling fails for other than four axes."""
    keras: Any = require("keras")
    picture = keras.Input((families.SIDE, families.SIDE, 3))
    value = keras.layers.Conv2D(8, 8, strides=8)(picture)
    tokens = keras.layers.Reshape((-1, 8))(value)
    value = keras.layers.Flatten()(keras.layers.LayerNormalization()(tokens))
    net = families.source_of(keras.Model(picture, keras.layers.Dense(5)(value), name="net"))
    for route in ROUTES.values():
        made = onnx_routes.checked(route, net, tmp_path)
        kinds = {node.op_type for node in onnx.load_from_string(made.content).graph.node}
        assert "GlobalAveragePool" not in kinds
        assert made.error < 1e-5


def _off_by(share: float) -> Route:
    """Return a route that adds this share of the first logit's size to it."""

    def route(source: Source, folder: Path) -> Written:
        model = ROUTES["through the graph"](source, folder).model
        (given,) = model.graph.output
        shift = np.zeros((1, 5), np.float32)
        shift[0, 0] = share
        model.graph.initializer.append(onnx.numpy_helper.from_array(shift, "shift"))
        for node in model.graph.node:
            node.output[:] = ["bare" if name == given.name else name for name in node.output]
        model.graph.node.append(onnx.helper.make_node("Add", ["bare", "shift"], [given.name]))
        return Written(model)

    return route


def test_the_most_exact_route_is_taken_before_the_smallest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lost bias that is small beside the logits lies below the ceiling for all."""
    net = source(_pooled)
    exact = onnx_routes.checked(ROUTES["through the graph"], net, tmp_path)
    wrong = onnx_routes.checked(_off_by(3e-4), net, tmp_path)
    assert 1e-5 < wrong.error < onnx_routes.TOLERANCE
    for name in ("direct", "through TFLite"):
        monkeypatch.setitem(ROUTES, name, _off_by(3e-4))
    assert onnx_routes.float32(net) == exact.content


def test_behind_an_exact_route_no_other_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """tf2onnx takes four times the memory and most of the time."""
    net = source(_pooled)
    for name in ("through TFLite", "through the graph"):
        monkeypatch.setitem(ROUTES, name, lambda source, folder: pytest.fail("not needed"))
    direct = onnx_routes.checked(ROUTES["direct"], net, tmp_path)
    assert onnx_routes.float32(net) == direct.content


def test_nodes_decide_between_equally_exact_routes_only() -> None:
    exact, small, wrong = (
        RoutedModel(9, 0.0, StoredBytes(b"a")),
        RoutedModel(8, 9e-6, StoredBytes(b"b")),
        RoutedModel(1, 2e-5, StoredBytes(b"c")),
    )
    assert onnx_routes.best([exact, small, wrong]) == small
    assert onnx_routes.best([exact, wrong]) == exact
    assert onnx_routes.best([replace(exact, error=wrong.error), wrong]) == wrong


def test_the_model_is_written_once_for_its_file_and_its_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = source(_pooled)
    written: list[bytes] = []
    write = writing.write

    def counted(content: bytes) -> Written:
        written.append(content)
        return write(content)

    monkeypatch.setattr(writing, "write", counted)
    graph = onnx.load_from_string(onnx_routes.float32(net)).graph
    values = {name for node in graph.node for name in node.output}
    assert values & onnx_routes.names(net).keys()
    assert len(written) == 1
