"""A Keras model as a graph of nodes: traced, run on numbers, and built again."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nets
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import GraphTensor, trace
from kedge_convert.prepare.preparation import MEMORY, affordable
from kedge_convert.prepare.running import fold_over, peak, run
from kedge_convert.toolkit import require

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


@pytest.mark.parametrize("name", nets.NETS)
def test_a_traced_model_built_again_is_the_same_function(name: str) -> None:
    model, pictures = nets.make(name), nets.pictures(4)
    again = trace(model).build()
    np.testing.assert_allclose(again(pictures), model(pictures), atol=1e-5)


@pytest.mark.parametrize("name", nets.NETS)
def test_nodes_run_on_numbers_give_the_models_answers(name: str) -> None:
    model, pictures = nets.make(name), nets.pictures(45)
    graph = trace(model)
    values = {graph.input: pictures}
    for node in graph.nodes:
        values[node.output] = run(node, values)
    np.testing.assert_allclose(values[graph.output], model(pictures), atol=1e-5)


def test_chunks_see_every_tensor_of_every_picture_once() -> None:
    graph, pictures = trace(nets.make("residual")), nets.pictures(45)
    seen: dict[GraphTensor, int] = {}

    def visit(tensor: GraphTensor, value: object) -> None:
        seen[tensor] = seen.get(tensor, 0) + len(np.asarray(value))

    fold_over(graph, pictures, visit)
    assert set(seen) == {graph.input, *(node.output for node in graph.nodes)}
    assert set(seen.values()) == {45}


def test_nested_models_are_flattened() -> None:
    kinds = [type(node.layer).__name__ for node in trace(nets.make("nested")).nodes]
    assert kinds.count("Conv2D") == 2
    assert "Functional" not in kinds


def test_the_peak_of_a_chain_is_its_largest_neighbours() -> None:
    graph = preparation.plan(nets.make("chain"))
    # A 3x3 convolution of stride 2 from 12x12x3 to 6x6x8, a depthwise one, a pointwise one to 16.
    assert peak(graph) == 6 * 6 * 8 + 6 * 6 * 16


@pytest.mark.parametrize("count", [1, 16, 1000, 10**9])
def test_pictures_are_as_many_as_memory_holds(count: int) -> None:
    graph = preparation.plan(nets.make("residual"))
    afforded = affordable(graph, count)
    live = 2 * 4 * peak(graph)
    assert afforded <= count
    assert afforded * live <= max(MEMORY, 16 * live)
    assert afforded == count or (afforded + 1) * live > MEMORY


def test_a_huge_net_gets_sixteen_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kedge_convert.prepare.preparation.MEMORY", 1)
    assert affordable(preparation.plan(nets.make("chain")), 200) == 16


ALONE = {"left_alone": ["einsum"]}


@pytest.mark.parametrize("name", nets.NETS)
def test_what_is_left_alone_is_listed_once(name: str) -> None:
    assert nets.untreated(preparation.plan(nets.make(name))) == ALONE.get(name, [])


def test_layers_left_alone_keep_their_weights() -> None:
    model, pictures = nets.make("left_alone"), nets.pictures(30)
    prepared = nets.prepared(preparation.plan(model), pictures)
    before, after = (each.get_layer("einsum").get_weights() for each in (model, prepared))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", nets.NETS)
def test_every_net_can_be_prepared(name: str) -> None:
    model, pictures = nets.make(name), nets.pictures(60)
    ticks: list[int] = []
    graph = preparation.plan(model)
    prepared = nets.prepared(graph, pictures, tick=lambda: ticks.append(1))
    assert len(ticks) == len(graph.nodes)
    others = nets.pictures(40, seed=1)
    wanted, found = np.asarray(model(others)), np.asarray(prepared(others))
    assert np.square(found - wanted).mean() < 0.02 * np.square(wanted - wanted.mean(0)).mean()


def test_preparation_is_repeatable() -> None:
    pictures = nets.pictures(40)
    first, second = (
        nets.prepared(preparation.plan(nets.make("mobile")), pictures, seed=3).get_weights()
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def picture() -> Any:
    return require("keras").Input((nets.SIDE, nets.SIDE, 3))


def same_layer_names() -> Any:
    """Two nets of one builder, averaged; a layer called as an activation of ours, one as ours."""
    layers, image = require("keras").layers, picture()

    def body(name: str) -> Any:
        x = layers.Conv2D(4, 3, activation="relu", name="conv")(inner := picture())
        x = layers.ReLU(name="conv_activation")(layers.Conv2D(4, 1, name="picture")(x))
        return require("keras").Model(inner, layers.GlobalAveragePooling2D()(x), name=name)

    return require("keras").Model(image, layers.Average()([body("a")(image), body("b")(image)]))


def split_and_attended() -> Any:
    """Operations with several outputs: ShuffleNet's split, attention with its scores."""
    keras, image = require("keras"), picture()
    first, second = keras.ops.split(keras.layers.Conv2D(8, 3)(image), 2, axis=-1)
    rows = keras.layers.Reshape((-1, 4))(first)
    attention = keras.layers.MultiHeadAttention(1, 4)
    attended, scores = attention(rows, rows, return_attention_scores=True)
    ends = [keras.ops.mean(attended, axis=1), keras.ops.mean(second, axis=(1, 2))]
    return keras.Model(image, keras.layers.Concatenate()([*ends, keras.ops.mean(scores, (1, 2))]))


def augmented() -> Any:
    """Layers that change pictures unless they are told that nobody trains."""
    keras, image = require("keras"), picture()
    x = keras.layers.RandomRotation(0.3)(keras.layers.RandomFlip()(image))
    return keras.Model(image, keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(x)))


@pytest.mark.parametrize("make", [same_layer_names, split_and_attended, augmented])
def test_what_nets_of_ones_own_do_is_kept(make: Callable[[], Any]) -> None:
    model, pictures = make(), nets.pictures(4)
    expected = np.asarray(model(pictures, training=False))
    graph = preparation.plan(model)
    np.testing.assert_allclose(graph.build()(pictures), expected, atol=1e-5)
    values = {graph.input: pictures}
    for node in graph.nodes:
        values[node.output] = run(node, values)
    np.testing.assert_allclose(values[graph.output], expected, atol=1e-5)
