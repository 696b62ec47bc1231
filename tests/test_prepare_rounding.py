"""Weights on the int8 grid: windows against TensorFlow's patches, rounding against brute force."""

import itertools
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nets
from kedge_convert.prepare import preparation, rounding
from kedge_convert.prepare.batches import Batches
from kedge_convert.prepare.graph import GraphTensor, Node, Weights, in_keras_order, trace
from kedge_convert.prepare.kernels import KernelCall
from kedge_convert.prepare.preparation import Grids, Rounding, round_weights
from kedge_convert.prepare.rounding import LEVELS, Grid, moments, on_grid, on_grid_by_inputs, plain
from kedge_convert.prepare.running import quantised, simulate
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

tf: Any = pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

Doubles = NDArray[np.float64]


def correlated(samples: int, n: int, seed: int = 0) -> NDArray[np.float32]:
    """Return inputs [samples, n] that a few factors explain, as neighbouring channels are."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(samples, max(n // 4, 1)))
    mixed = factors @ rng.normal(size=(factors.shape[1], n))
    return np.asarray(mixed + rng.normal(0, 0.1, (samples, n)) + 1, np.float32)


def output_error(inputs: NDArray[Any], wanted: Doubles, found: Doubles) -> float:
    """Return the mean square error of the outputs, less their mean, which the bias makes good."""
    error = inputs @ (wanted - found)
    return float(np.square(error - error.mean(axis=0)).mean())


@pytest.mark.parametrize(("n", "outputs"), [(9, 1), (27, 8), (200, 16)])
def test_compensated_rounding_beats_the_nearest(n: int, outputs: int) -> None:
    x = correlated(4000, n)
    weights = np.random.default_rng(1).normal(size=(n, outputs))
    rounded = on_grid(weights, moments(x, x, len(x)))
    assert output_error(x, weights, rounded) < 0.5 * output_error(x, weights, plain(weights))


def test_compensated_rounding_comes_near_to_the_best_of_all() -> None:
    x = correlated(2000, 4)
    weights = np.random.default_rng(2).normal(size=(4, 1))
    step = np.abs(weights).max() / LEVELS
    below = np.floor(weights / step)[:, 0]
    choices = (below + np.array(ups) for ups in itertools.product((-1, 0, 1, 2), repeat=4))
    errors = [output_error(x, weights, c[:, None] * step) for c in choices]
    found = output_error(x, weights, on_grid(weights, moments(x, x, len(x))))
    nearest = output_error(x, weights, plain(weights))
    assert min(errors) * (1 - 1e-9) <= found
    assert found < nearest
    assert found < np.quantile(errors, 0.05)


def test_rounding_makes_good_what_the_inputs_have_lost() -> None:
    floats = correlated(4000, 16)
    noise = np.random.default_rng(3).normal(0, 0.3, floats.shape)
    rounded = np.asarray(floats * 0.9 + noise, np.float32)
    weights = np.random.default_rng(4).normal(size=(16, 4))
    aware = on_grid(weights, moments(rounded, floats, len(floats)))
    unaware = on_grid(weights, moments(floats, floats, len(floats)))

    def error(found: Doubles) -> float:
        difference = floats @ weights - rounded @ found
        return float((difference - difference.mean(axis=0)).var())

    assert error(aware) < 0.8 * error(unaware)


@pytest.mark.parametrize("shape", [(30, 6), (150, 6), (8, 9, 1), (8, 9, 2)])
def test_any_quantiser_finds_the_same_integers(shape: tuple[int, ...]) -> None:
    weights = np.random.default_rng(5).normal(size=shape)
    x = np.stack([correlated(500, shape[-2], seed) for seed in range(int(np.prod(shape[:-2])))])
    x = x[0] if len(shape) == 2 else x
    for found in (on_grid(weights, moments(x, x, 500)), plain(weights)):
        stored = found.astype(np.float32)
        step = np.abs(stored).max(axis=-2, keepdims=True) / np.float32(LEVELS)
        ratio = stored / step
        integers = np.rint(ratio)
        np.testing.assert_allclose(ratio, integers, atol=1e-4)
        assert (np.abs(integers).max(axis=-2) == LEVELS).all()


def test_a_silent_channel_stays_silent() -> None:
    x = correlated(500, 9)
    weights = np.zeros((9, 2))
    weights[:, 1] = np.linspace(-1, 1, 9)
    found = on_grid(weights, moments(x, x, len(x)))
    assert np.isfinite(found).all()
    assert np.abs(found[:, 0]).max() < 1e-9


def test_depthwise_channels_are_rounded_each_by_itself() -> None:
    x = np.stack([correlated(500, 9, seed) for seed in range(4)])
    weights = np.random.default_rng(6).normal(size=(4, 9, 2))
    whole = on_grid(weights, moments(x, x, 500))
    for channel in range(4):
        alone = slice(channel, channel + 1)
        part = on_grid(weights[alone], moments(x[alone], x[alone], 500))
        np.testing.assert_allclose(whole[alone], part, rtol=1e-6)


def test_moments_of_many_channels_are_those_of_each_and_take_little_memory() -> None:
    rng = np.random.default_rng(8)
    x, f = (rng.normal(size=(5 * rounding.PART + 3, 900, 9)).astype(np.float32) for _ in range(2))
    tracemalloc.start()
    found = moments(x, f, 900)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < x.nbytes, f"{most / x.nbytes:.2f} of the inputs"
    for channel in (0, rounding.PART, len(x) - 1):
        alone = moments(x[channel], f[channel], 900)
        np.testing.assert_array_equal(found.own[channel], alone.own)
        np.testing.assert_array_equal(found.cross[channel], alone.cross)


def layer_node(kind: str, **options: Any) -> tuple[Node, NDArray[np.float32]]:
    """Return a node over pictures of 4 channels, and pictures."""
    layers = require("keras").layers
    if kind == "depthwise":
        built = layers.DepthwiseConv2D(depth_multiplier=2, **options)
    elif kind == "transposed":
        built = layers.Conv2DTranspose(5, **options)
    else:
        built = layers.Conv2D(5, **options)
    pictures = np.random.default_rng(0).normal(size=(3, 11, 14, 4)).astype(np.float32)
    built(pictures)
    kernel, bias = (np.asarray(weight) for weight in built.get_weights())
    kernel = in_keras_order(kind, kernel)
    return Node(built, (GraphTensor(0),), {}, GraphTensor(1), Weights(kind, kernel, bias)), pictures


CASES = [
    {"kernel_size": size, "padding": padding, **more}
    for size in (1, 2, 3, (3, 5), (4, 1))
    for padding in ("valid", "same")
    for more in ({}, {"strides": 2}, {"strides": 3}, {"dilation_rate": 2})
]


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_windows_are_tensorflows_patches(kind: str, options: dict[str, Any]) -> None:
    node, pictures = layer_node(kind, **options)
    assert node.weights is not None
    size = node.weights.kernel.shape[:2]
    stride, rate = node.layer.strides[0], node.layer.dilation_rate[0]
    padding = options["padding"].upper()
    patches = tf.image.extract_patches(
        pictures, (1, *size, 1), (1, stride, stride, 1), (1, rate, rate, 1), padding
    ).numpy()
    rng = np.random.default_rng(1)
    at = rounding.positions(node, pictures.shape, 10**6, rng)
    assert sorted(map(tuple, at)) == list(np.ndindex(*patches.shape[1:3]))
    expected = patches[:, at[:, 0], at[:, 1]].reshape(len(pictures) * len(at), -1, 4)
    found = rounding.sample(node, Batches.of(pictures), at)
    if kind == "depthwise":
        np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))
    else:
        np.testing.assert_array_equal(found, expected.reshape(len(expected), -1))


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_windows_times_the_flat_kernel_are_the_layers_output(kind: str) -> None:
    node, pictures = layer_node(kind, kernel_size=3, strides=2, padding="same")
    assert node.weights is not None
    at = rounding.positions(node, pictures.shape, 7, np.random.default_rng(1))
    assert at.shape == (7, 2)
    found = np.matmul(
        rounding.sample(node, Batches.of(pictures), at), rounding.flatten(node.weights)
    )
    wanted = np.asarray(node.layer(pictures))[:, at[:, 0], at[:, 1]]
    rows = wanted.reshape(-1, wanted.shape[-1])
    if kind == "depthwise":
        rows = rows.reshape(len(rows), *node.weights.kernel.shape[2:]).transpose(1, 0, 2)
    np.testing.assert_allclose(found, rows, atol=1e-5)


TRANSPOSED = [
    {"kernel_size": size, "padding": padding, **more}
    for size in (1, 2, 3, (3, 5), (4, 1))
    for padding in ("valid", "same")
    for more in ({}, {"strides": 2}, {"strides": (1, 3)}, {"strides": 2, "output_padding": 1})
]


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_windows_of_transposed_convolutions(options: dict[str, Any]) -> None:
    """At every output position, against TensorFlow; each input pixel is seen by each tap once."""
    node, pictures = layer_node("transposed", **options)
    assert node.weights is not None
    wanted = np.asarray(node.layer(pictures))
    at = rounding.positions(node, pictures.shape, 10**6, np.random.default_rng(1))
    assert sorted(map(tuple, at)) == list(np.ndindex(*wanted.shape[1:3]))
    windows = rounding.sample(node, Batches.of(pictures), at)
    found = windows @ rounding.flatten(node.weights)
    rows = wanted[:, at[:, 0], at[:, 1]].reshape(len(found), -1)
    np.testing.assert_allclose(found, rows, atol=1e-5)
    taps = windows.reshape(len(windows), -1, 4)
    if options["padding"] == "valid":
        expected = np.broadcast_to(pictures.sum(axis=(0, 1, 2)), taps.shape[1:])
        np.testing.assert_allclose(taps.sum(axis=0), expected, rtol=1e-3, atol=1e-3)


def test_a_transposed_convolution_gets_positions_by_its_strides() -> None:
    """An output position sees a part of the taps only."""
    node, pictures = layer_node("transposed", kernel_size=3, strides=2)
    at = rounding.positions(node, pictures.shape, 7, np.random.default_rng(1))
    assert len(at) == 28


def test_a_transposed_kernel_beats_the_nearest_on_other_pictures() -> None:
    keras = require("keras")
    keras.utils.set_random_seed(0)
    picture = keras.Input((nets.SIDE, nets.SIDE, 3))
    wide = keras.layers.Conv2D(24, 3, activation="relu", trainable=False)(picture)
    model = keras.Model(picture, keras.layers.Conv2DTranspose(6, 3, 2, padding="same")(wide))
    graph, others = preparation.plan(model), nets.pictures(40, seed=1)
    first, last = graph.nodes
    spared = Rounding(floats=frozenset({graph.input}))  # the first kernel stays float
    rounded = round_weights(graph, nets.pictures(120), spared).nodes[1]
    assert last.weights is not None
    flat = rounding.flatten(last.weights).astype(np.float64)
    kernel = rounding.restore(plain(flat), last.weights)
    nearest = replace(last, weights=replace(last.weights, kernel=kernel))
    inner = np.asarray(first.run({graph.input: others}.__getitem__))
    wanted, *found = (np.asarray(each.linear(inner)) for each in (last, rounded, nearest))
    errors = [(each - wanted).reshape(-1, 6).var(axis=0).mean() for each in found]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("kind", ["conv", "depthwise", "transposed"])
def test_flat_kernels_come_back(kind: str) -> None:
    weights = layer_node(kind, kernel_size=(2, 3))[0].weights
    assert weights is not None
    again = rounding.restore(rounding.flatten(weights).astype(np.float64), weights)
    np.testing.assert_array_equal(again, weights.kernel)


@pytest.mark.parametrize("name", ["chain", "mobile"])
def test_every_prepared_kernel_lies_on_the_grid(name: str) -> None:
    prepared = nets.prepared(preparation.plan(nets.make(name)), nets.pictures(40))
    kernels = [node for node in preparation.plan(prepared).nodes if node.weights]
    assert len(kernels) >= 4
    for node in kernels:
        assert node.weights is not None
        flat = rounding.flatten(node.weights).astype(np.float64)
        ratio = flat / (np.abs(flat).max(axis=-2, keepdims=True) / LEVELS)
        np.testing.assert_allclose(ratio, np.rint(ratio), atol=1e-4)


@pytest.mark.parametrize("grid", [Grid(), Grid(64), Grid(shared=True), Grid(64, shared=True)])
def test_a_grid_has_so_many_levels_and_one_step_or_many(grid: Grid) -> None:
    x = correlated(500, 12)
    weights = np.random.default_rng(6).normal(size=(12, 5)) * np.array([1, 2, 4, 8, 16])
    for found in (on_grid(weights, moments(x, x, 500), grid), plain(weights, grid)):
        peaks = np.abs(found).max(axis=0)
        steps = (np.full(5, peaks.max()) if grid.shared else peaks) / grid.levels
        np.testing.assert_allclose(found / steps, np.rint(found / steps), atol=1e-9)
        assert np.abs(found / steps).max() == pytest.approx(grid.levels)
    coarse, fine = (on_grid(weights, moments(x, x, 500), each) for each in (grid, Grid()))
    assert output_error(x, weights, coarse) >= output_error(x, weights, fine)


def test_only_dense_layers_share_a_step() -> None:
    grids = Grids(64, per_channel_dense=False)
    for kind in ("conv", "depthwise", "dense"):
        weights = Weights(kind, np.ones((2, 2), np.float32), np.zeros(2, np.float32))
        assert grids.of(weights) == Grid(64, shared=kind == "dense")
        assert Grids().of(weights) == Grid()


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_bias_correction_takes_off_the_mean_error(padding: str) -> None:
    keras = require("keras")
    picture = keras.Input((nets.SIDE, nets.SIDE, 3))
    keras.utils.set_random_seed(0)
    model = keras.Model(picture, keras.layers.Conv2D(6, 3, padding=padding)(picture))
    pictures = nets.pictures(60) + np.float32(0.7)
    graph = trace(model)
    rounded = round_weights(preparation.plan(model), pictures, Rounding()).build()
    error = np.asarray(rounded(pictures)) - np.asarray(model(pictures))
    assert len(graph.nodes) == 1
    assert np.abs(error).max() > 1e-3  # the kernel has been rounded
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 1e-5


@pytest.mark.parametrize("name", ["mobile", "squeeze_excite"])
def test_bias_correction_through_a_whole_net(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pictures = nets.make(name), nets.pictures(60)
    graph = preparation.plan(model)

    def shift() -> float:
        """Return the mean output error with all that is integer, as a share of its spread."""
        rounded = round_weights(graph, pictures, Rounding())
        found = simulate(rounded, pictures, integer=True)
        wanted = simulate(graph, pictures, integer=False)
        return float(np.abs((found - wanted).mean(axis=0)).max() / wanted.std())

    corrected = shift()

    def uncorrected(call: KernelCall, kernel: Floats) -> Node:
        assert call.node.weights is not None
        return replace(call.node, weights=replace(call.node.weights, kernel=kernel))

    monkeypatch.setattr(KernelCall, "corrected", uncorrected)
    assert corrected < 0.3 * shift()
    # The last layer's own rounding to 256 steps is all that no bias makes good.
    assert corrected < 1.2e-3


def test_fewer_samples_than_inputs_give_the_same_weights_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    floats = correlated(60, 400)
    noise = np.random.default_rng(7).normal(0, 0.1, floats.shape)
    rounded = np.asarray(floats * 0.95 + noise, np.float32)
    weights = np.random.default_rng(8).normal(size=(400, 12))
    whole = on_grid(weights, moments(rounded, floats, 60))
    monkeypatch.setattr(rounding, "SMALL", 100)
    monkeypatch.setattr(rounding, "moments", None)  # no matrix of [n, n]
    found = on_grid_by_inputs(weights, (rounded, floats), 60)
    step = np.abs(whole).max(axis=0) / LEVELS
    # A tie may fall to either side, and the weights behind it make good for that.
    assert (np.rint(found / step) != np.rint(whole / step)).mean() < 0.01
    np.testing.assert_allclose(np.abs(found).max(axis=0), np.abs(whole).max(axis=0), rtol=1e-5)


@pytest.mark.parametrize("samples", [100, 4000])
def test_a_kernel_of_many_inputs_beats_the_nearest(
    monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    """By its samples where they are few, by blocks of inputs where they are many."""
    monkeypatch.setattr(rounding, "SMALL", 100)
    monkeypatch.setattr(rounding, "LARGEST", 200)
    x = correlated(4000, 300)
    weights = np.random.default_rng(1).normal(size=(300, 16))
    found = on_grid_by_inputs(weights, (x[:samples], x[:samples]), samples)
    step = np.abs(found).max(axis=0) / LEVELS
    np.testing.assert_allclose(found / step, np.rint(found / step), atol=1e-6)
    ratio = output_error(x, weights, found) / output_error(x, weights, plain(weights))
    assert ratio < (0.9 if samples == 100 else 0.5)


def test_a_kernel_of_few_inputs_is_rounded_as_a_whole() -> None:
    x = correlated(300, 40)
    weights = np.random.default_rng(1).normal(size=(40, 3))
    np.testing.assert_array_equal(
        on_grid_by_inputs(weights, (x, x), 300), on_grid(weights, moments(x, x, 300))
    )


def test_activations_of_256_steps() -> None:
    layer = require("keras").layers.ReLU()
    node = Node(layer, (GraphTensor(0),), {}, GraphTensor(1))
    value = np.random.default_rng(0).uniform(-3, 9, (500, 40)).astype(np.float32)
    found = quantised(node, value.copy())
    levels = np.unique(found)
    step = (value.max() - value.min()) / 255
    assert 250 < len(levels) <= 256
    assert 0.0 in levels
    # Zero lies on a step, so the ends may be cut by half a step.
    assert np.abs(found - value).max() <= step * 1.001
    np.testing.assert_allclose(np.diff(levels) / step, np.rint(np.diff(levels) / step), atol=1e-3)


def test_layers_that_keep_their_scale_are_not_quantised_again() -> None:
    node = Node(require("keras").layers.MaxPooling2D(), (GraphTensor(0),), {}, GraphTensor(1))
    value = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(quantised(node, value.copy()), value)
