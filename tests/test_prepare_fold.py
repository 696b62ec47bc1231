"""Batch norms folded into the layers before them: the same function with fewer nodes."""

import numpy as np
import pytest

import nets
from kedge_convert.prepare.fold import fold
from kedge_convert.prepare.graph import Graph, trace
from kedge_convert.toolkit import require

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

# Batch norms that nothing before them can take.
KEPT = {
    "shared": 1,  # before it lies an addition
    "own_activation": 1,
    "norm_first": 2,
    "used_twice": 1,
    "left_alone": 1,  # before it lies an EinsumDense
    "other_axes": 1,  # the first is of the rows
}


def folded(name: str) -> Graph:
    return fold(trace(nets.make(name)))


def count(graph: Graph, kind: str) -> int:
    return sum(type(node.layer).__name__ == kind for node in graph.nodes)


@pytest.mark.parametrize("name", nets.NETS)
def test_the_function_stays(name: str) -> None:
    model, pictures = nets.make(name), nets.pictures(8)
    again = fold(trace(model)).build()
    np.testing.assert_allclose(again(pictures), model(pictures), atol=1e-4)


@pytest.mark.parametrize("name", nets.NETS)
def test_every_batch_norm_that_can_be_folded_is(name: str) -> None:
    assert count(folded(name), "BatchNormalization") == KEPT.get(name, 0)


@pytest.mark.parametrize("name", nets.NETS)
def test_dropouts_are_gone(name: str) -> None:
    idle = ("Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout2D")
    assert sum(count(folded(name), kind) for kind in idle) == 0


def test_a_layer_of_its_own_activation_gives_it_up() -> None:
    """Engines fuse a ReLU; before another function they round to integers."""
    nodes = folded("own_activation").nodes
    weighted = [activation_of(node.activation) for node in nodes if node.weights]
    apart = [activation_of(node.layer) for node in nodes if not node.weights]
    assert weighted == ["relu", "", ""]
    assert apart.count("silu") == 1


def activation_of(layer: object) -> str:
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def test_separables_become_two_layers() -> None:
    kinds = [node.weights.kind for node in folded("separable").nodes if node.weights]
    assert kinds == ["depthwise", "conv", "depthwise", "conv", "dense"]


def test_the_formula() -> None:
    model = nets.make("chain")
    first, norm = model.get_layer("first"), model.layers[2]
    node = fold(trace(model)).nodes[0]
    gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    assert node.weights is not None
    np.testing.assert_allclose(node.weights.kernel, first.get_weights()[0] * factor, rtol=1e-6)
    np.testing.assert_allclose(node.weights.bias, beta - mean * factor, rtol=1e-5, atol=1e-6)


def test_a_norm_isnt_folded_where_something_else_reads_what_is_before_it() -> None:
    """Of Dropout, which vanishes, both the norm and the addition read the output."""
    keras = require("keras")
    layers, image = keras.layers, keras.Input((nets.SIDE, nets.SIDE, 3))
    dropped = layers.Dropout(0.1)(layers.Conv2D(4, 3, padding="same")(image))
    normed = layers.BatchNormalization(
        moving_variance_initializer=keras.initializers.Constant(4.0),
        moving_mean_initializer=keras.initializers.Constant(0.5),
    )(dropped)
    model = keras.Model(image, layers.Flatten()(layers.Add()([dropped, layers.ReLU()(normed)])))
    pictures = nets.pictures(3)
    again = fold(trace(model)).build()
    np.testing.assert_allclose(again(pictures), model(pictures), atol=1e-5)
