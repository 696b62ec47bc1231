"""Channels scaled to one range: the same function, and ranges that are more equal."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest

import nets
from kedge_convert.prepare import preparation
from kedge_convert.prepare.equalise import equalise, groups, homogeneous, measure
from kedge_convert.prepare.fold import ceiling
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.running import simulate
from kedge_convert.toolkit import require
from kedge_runtime.arrays import Floats

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

JUDGES = nets.pictures(8, seed=2)
UNBOUNDED = sorted(set(nets.NETS) - {"chain6", "mobile"})


def uneven(name: str) -> Any:
    """Return a net whose batch norms give channels of very different ranges."""
    model = nets.make(name)
    rng = np.random.default_rng(9)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization" and layer.scale and layer.center:
            factor = np.exp(rng.uniform(-2.5, 0, layer.gamma.shape))
            layer.gamma.assign(layer.gamma * factor)
            layer.beta.assign(layer.beta * factor)
    return model


def evenness(graph: Graph, pictures: Floats) -> list[float]:
    """Return, by scalable group, the mean channel's peak as a share of the tensor's largest."""
    channels, shapes = measure(graph, pictures)
    peaks = [channels[group.tensors[0]].peak for group in groups(graph, shapes)]
    return [float((peak / peak.max()).mean()) for peak in peaks]


@pytest.mark.parametrize("name", UNBOUNDED)
def test_the_function_stays(name: str) -> None:
    model, pictures = uneven(name), nets.pictures(30)
    equalised = equalise(preparation.plan(model), pictures, JUDGES).build()
    np.testing.assert_allclose(equalised(pictures), model(pictures), atol=1e-4)
    others = nets.pictures(10, seed=1) * np.float32(3)
    np.testing.assert_allclose(equalised(others), model(others), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["chain6", "mobile"])
def test_the_function_stays_where_no_relu6_clips(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By its full name: in the package the function of the same name stands before the module.
    module = import_module("kedge_convert.prepare.equalise")
    monkeypatch.setattr(module, "STRENGTHS", (1.0,))
    model, pictures = uneven(name), nets.pictures(30) * np.float32(0.5)
    graph = preparation.plan(model)
    channels, _ = measure(graph, pictures)
    tops = [channels[n.output].peak.max() for n in graph.nodes if ceiling(n.activation) == 6.0]
    assert max(tops) < 6
    equalised = equalise(graph, pictures, JUDGES).build()
    np.testing.assert_allclose(equalised(pictures), model(pictures), atol=1e-4)


@pytest.mark.parametrize("name", ["chain", "chain6", "mobile"])
def test_ranges_become_more_equal(name: str) -> None:
    pictures = nets.pictures(30)
    graph = preparation.plan(uneven(name))
    before, after = (evenness(one, pictures) for one in (graph, equalise(graph, pictures, JUDGES)))
    assert before
    assert all(new >= old - 1e-6 for old, new in zip(before, after, strict=True))
    assert np.mean(after) > 1.2 * np.mean(before)


def test_before_a_depthwise_layer_every_channel_gets_the_full_range() -> None:
    pictures = nets.pictures(30)
    graph = equalise(preparation.plan(uneven("chain")), pictures, JUDGES)
    channels, shapes = measure(graph, pictures)
    (free,) = [group for group in groups(graph, shapes) if group.free]
    peak = channels[free.tensors[0]].peak
    heard = peak > 0
    assert heard.sum() >= len(peak) - 2
    np.testing.assert_allclose(peak[heard], peak.max(), rtol=1e-4)


# How many groups can be scaled: none where an activation that isn't linear, or an end, is in one.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chain", 3),
        ("residual", 2),  # the stem, what is added to it and the sum; and what lies between the two
        ("own_activation", 0),
        ("used_twice", 0),
        ("constants", 0),
    ],
)
def test_groups(name: str, expected: int) -> None:
    graph = preparation.plan(nets.make(name))
    _, shapes = measure(graph, nets.pictures(4))
    found = groups(graph, shapes)
    assert len(found) == expected
    for group in found:
        assert graph.input not in group.tensors
        assert graph.output not in group.tensors


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda layers: None, float("inf")),
        (lambda layers: layers.ReLU(), float("inf")),
        (lambda layers: layers.ReLU(6.0), 6.0),
        (lambda layers: layers.ReLU(1.0), 1.0),
        (lambda layers: layers.ReLU(negative_slope=0.1), None),
        (lambda layers: layers.ReLU(threshold=0.5), None),
        (lambda layers: layers.Activation("relu"), float("inf")),
        (lambda layers: layers.Activation("relu6"), 6.0),
        (lambda layers: layers.Activation("linear"), float("inf")),
        (lambda layers: layers.Activation("swish"), None),
        (lambda layers: layers.Activation("sigmoid"), None),
    ],
)
def test_ceilings(make: Any, expected: float | None) -> None:
    assert ceiling(make(require("keras").layers)) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda layers: layers.LeakyReLU(negative_slope=0.1), True),
        (lambda layers: layers.PReLU(shared_axes=(1, 2)), True),
        (lambda layers: layers.ReLU(), True),
        (lambda layers: layers.ReLU(negative_slope=0.1), True),
        (lambda layers: layers.ReLU(6.0), False),
        (lambda layers: layers.ReLU(threshold=0.5), False),
        (lambda layers: layers.Activation("leaky_relu"), True),
        (lambda layers: layers.Activation("swish"), False),
        (lambda layers: layers.ELU(), False),
        (lambda layers: layers.Softmax(), False),
    ],
)
def test_what_a_factor_passes_through(make: Any, expected: bool) -> None:
    """Judged by the layer itself, on numbers and several factors."""
    layer = make(require("keras").layers)
    assert homogeneous(layer) == expected
    value = np.random.default_rng(3).normal(size=(2, 4, 4, 3)).astype(np.float32) * 4
    layer(value)
    passes = [
        np.allclose(layer(value * np.float32(a)), layer(value) * a, rtol=1e-5, atol=1e-6)
        for a in (0.3, 2.0, 17.0)
    ]
    assert all(passes) == expected


def test_the_strength_with_the_least_noise_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("kedge_convert.prepare.equalise")
    graph, pictures = preparation.plan(uneven("mobile")), nets.pictures(30)
    wanted = simulate(graph, JUDGES, integer=False)

    def noise(strengths: tuple[float, ...]) -> float:
        monkeypatch.setattr(module, "STRENGTHS", strengths)
        found = simulate(equalise(graph, pictures, JUDGES), JUDGES, integer=True)
        return float(np.square(found - wanted).mean())

    alone = [noise((strength,)) for strength in (0.0, 0.5, 1.0)]
    assert len(set(alone)) == 3
    assert noise((0.0, 0.5, 1.0)) == min(alone)


def test_scaling_that_does_harm_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("kedge_convert.prepare.equalise")
    graph, others = preparation.plan(uneven("chain")), preparation.plan(nets.make("chain", seed=1))
    monkeypatch.setattr(module, "scaled", lambda *_: others)
    assert equalise(graph, nets.pictures(30), JUDGES) is graph


def test_statistics_are_those_of_all_pictures_at_once() -> None:
    graph, pictures = preparation.plan(nets.make("residual")), nets.pictures(45)
    channels, shapes = measure(graph, pictures)
    values = {graph.input: pictures}
    for node in graph.nodes:
        values[node.output] = np.asarray(node.run(values.__getitem__))
    for tensor, value in values.items():
        rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
        found = channels[tensor]
        np.testing.assert_allclose(found.peak, np.abs(rows).max(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found.power, np.square(rows).sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(found.least, min(rows.min(), 0), rtol=1e-5)
        assert found.seen == len(rows)
        assert shapes[tensor][1:] == value.shape[1:]
