"""Compensated rounding stays only where it is closer on images that nothing was fitted to."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nets
from kedge_convert.prepare import judging, preparation, rounding
from kedge_convert.prepare.batches import Batches
from kedge_convert.prepare.graph import Node
from kedge_convert.prepare.preparation import Rounding, round_weights
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


def weighted(name: str) -> list[Node]:
    return [node for node in preparation.plan(nets.make(name)).nodes if node.weights]


def inputs_of(node: Node, count: int = 4) -> Floats:
    """Return seeded inputs of a weighted node."""
    assert node.weights is not None
    channels = node.weights.kernel.shape[0 if node.weights.kind == "dense" else 2]
    channels *= node.weights.groups
    shape = (count, channels) if node.weights.kind == "dense" else (count, 9, 8, channels)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ["mobile", "chain6", "separable", "grouped", "transposed"])
def test_outputs_of_windows_are_those_of_the_node(name: str) -> None:
    for node in weighted(name):
        value = inputs_of(node)
        at = rounding.positions(node, value.shape, 10**6, np.random.default_rng(0))
        found = judging.outputs(node, rounding.sample(node, Batches.of(value), at))
        wanted = np.asarray(node.run({node.inputs[0]: value}.__getitem__))
        if wanted.ndim == 4:
            wanted = wanted[:, at[:, 0], at[:, 1]].reshape(-1, wanted.shape[-1])
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_an_error_grows_with_what_the_kernel_is_off() -> None:
    for node in weighted("mobile"):
        assert node.weights is not None
        kernel = node.weights.kernel
        candidates = [
            replace(node, weights=replace(node.weights, kernel=kernel * np.float32(factor)))
            for factor in (1.0, 1.001, 1.2)
        ]
        value = inputs_of(node)
        at = rounding.positions(node, value.shape, 20, np.random.default_rng(0))
        pair = (rounding.sample(node, Batches.of(value), at),) * 2
        errors = [judging.output_error(node, each, pair) for each in candidates]
        assert errors[0] == 0.0
        assert 0 < errors[1] < errors[2]


def dense() -> Any:
    keras = require("keras")
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Dense(6)(keras.layers.Flatten()(image)))


def kernel_is_plain(images: Floats) -> bool:
    """Whether the only kernel of a net is rounded to the nearest, fitted to images."""
    graph = preparation.plan(dense())
    (before,) = [node.weights for node in graph.nodes if node.weights]
    after = round_weights(graph, images, Rounding())
    (found,) = [node.weights for node in after.nodes if node.weights]
    flat = rounding.flatten(before).astype(np.float64)
    return bool(np.array_equal(found.kernel, rounding.restore(rounding.plain(flat), before)))


def test_rounding_that_fits_its_own_images_only_gives_way_to_the_nearest() -> None:
    rng = np.random.default_rng(2)
    count = 160
    judges = judging.judges(count)
    # Those that judge are loud where those that are fitted to are all but silent.
    loud = rng.permutation(192) < 96
    images = rng.normal(0, 1, (count, 192)) * np.where(loud, 0.02, 1)
    images[:judges] = rng.normal(0, 1, (judges, 192)) * np.where(loud, 1, 0.02)
    assert kernel_is_plain(images.reshape(count, 8, 8, 3).astype(np.float32))


def test_rounding_that_holds_on_other_images_is_kept() -> None:
    rng = np.random.default_rng(2)
    mixed = rng.normal(size=(160, 12)) @ rng.normal(size=(12, 192))
    images = mixed + rng.normal(0, 0.1, mixed.shape)
    assert not kernel_is_plain(images.reshape(160, 8, 8, 3).astype(np.float32))
