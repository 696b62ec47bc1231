"""Layers run as one function of TensorFlow's give the same numbers as operation by operation."""

from typing import Any

import numpy as np
import pytest

from kedge_convert.prepare.fused import fused
from kedge_convert.prepare.graph import GraphTensor, Node, Weights
from kedge_convert.prepare.steps import STEPS, in_steps, low_and_step
from kedge_convert.toolkit import require

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

CHANNELS = 24


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded source of numbers."""
    return np.random.default_rng(3)


def node_of(layer: Any, kind: str, activation: Any, rng: np.random.Generator) -> Node:
    """Return a layer's node with weights of its own, from CHANNELS to 32 or CHANNELS."""
    outputs = CHANNELS if kind == "depthwise" else 32
    last = (CHANNELS, 1) if kind == "depthwise" else (CHANNELS, outputs)
    kernel = rng.normal(0, 0.2, (*layer.kernel_size, *last)).astype(np.float32)
    weights = Weights(kind, kernel, rng.normal(size=outputs).astype(np.float32))
    return Node(layer, (GraphTensor(0),), {}, GraphTensor(1), weights, activation)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("kind", "size"), [("conv", 1), ("conv", 3), ("depthwise", 3)])
def test_one_function_gives_the_same_bits(
    kind: str, size: int, strides: int, padding: str, rng: np.random.Generator
) -> None:
    layers = require("keras").layers
    options: dict[str, Any] = {"strides": strides, "padding": padding}
    layer = (
        layers.DepthwiseConv2D(size, **options)
        if kind == "depthwise"
        else layers.Conv2D(32, size, **options)
    )
    activations = (None, layers.ReLU(6.0), layers.ReLU(), layers.Activation("relu6"))
    for count, side in ((20, 31), (3, 16)):
        images = rng.normal(0, 2, (count, side, side, CHANNELS)).astype(np.float32)
        for activation in activations:
            node = node_of(layer, kind, activation, rng)
            assert fused(layer, kind, activation) is not None
            linear = node.linear(images)
            plain = linear if activation is None else activation(linear)
            one = node.run({GraphTensor(0): images}.__getitem__)
            np.testing.assert_array_equal(np.asarray(one), np.asarray(plain))


def test_what_has_no_such_function_runs_operation_by_operation(rng: np.random.Generator) -> None:
    layers = require("keras").layers
    wide = layers.Conv2D(32, 3, dilation_rate=2)
    for layer, activation in (
        (wide, None),
        (layers.Conv2D(32, 3), layers.ReLU(4.0)),
        (layers.Conv2D(32, 3), layers.Activation("tanh")),
    ):
        assert fused(layer, "conv", activation) is None
        node = node_of(layer, "conv", activation, rng)
        images = rng.normal(size=(2, 16, 16, CHANNELS)).astype(np.float32)
        linear = node.linear(images)
        plain = linear if activation is None else activation(linear)
        one = node.run({GraphTensor(0): images}.__getitem__)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(plain))


@pytest.mark.parametrize(("low", "high"), [(0, 6), (-3, 9), (-1, 0), (2, 5), (-0.37, 0.41)])
def test_steps_are_those_with_every_number_clipped(
    low: float, high: float, rng: np.random.Generator
) -> None:
    for _ in range(20):
        value = rng.uniform(low, high, (7, 30_011)).astype(np.float32)
        least, step = low_and_step(value)
        zero, width = np.rint(-least / step), np.float32(step)
        ends = np.float32(-zero), np.float32(STEPS - zero)
        wanted = np.clip(np.rint(value / width), *ends) * width
        np.testing.assert_array_equal(in_steps(value.copy()), wanted)
