"""Weights of one step a layer: factors make up for channels of different size."""

import numpy as np
import pytest

import nets
from kedge_convert.prepare import one_step, preparation
from kedge_convert.prepare.equalise import over, times
from kedge_convert.prepare.graph import Graph, Node
from kedge_convert.prepare.preparation import Grids, Rounding, round_weights
from kedge_convert.prepare.running import simulate
from kedge_runtime.drift.statistics import sqnr

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

ONE_STEP = Rounding(grids=Grids(per_channel=False))


def uneven(name: str) -> Graph:
    """Return a net whose channels differ a hundredfold between a convolution and its reader."""
    graph = preparation.plan(nets.make(name))
    nodes = list(graph.nodes)
    weighted = [i for i, node in enumerate(nodes) if node.weights]
    first, second = weighted[:2]
    weights = nodes[first].weights
    assert weights is not None
    factors = np.geomspace(0.1, 10, len(weights.bias)).astype(np.float32)
    nodes[first], nodes[second] = times(nodes[first], factors), over(nodes[second], factors)
    return graph.with_nodes(nodes)


def judged(graph: Graph) -> float:
    """Return the SQNR in dB of a graph with rounded weights, on images of their own."""
    others = nets.pictures(60, seed=3)
    rounded = round_weights(graph, nets.pictures(64), ONE_STEP)
    wanted = simulate(graph, others, integer=False)
    return sqnr(wanted, simulate(rounded, others, integer=True))


@pytest.mark.parametrize("name", ["chain", "residual", "branches"])
def test_the_function_stays(name: str) -> None:
    graph, pictures = preparation.plan(nets.make(name)), nets.pictures(40)
    levelled = one_step.equalise_for_one_step(graph, pictures[8:], pictures[:8])
    before, after = (simulate(each, pictures, integer=False) for each in (graph, levelled))
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())


@pytest.mark.parametrize("name", ["chain", "mobile", "residual"])
def test_factors_make_up_for_uneven_channels(name: str) -> None:
    graph = uneven(name)
    levelled = preparation.equalised(graph, nets.pictures(64), per_channel=False)
    even = preparation.equalised(preparation.plan(nets.make(name)), nets.pictures(64))
    assert judged(levelled) > judged(graph) + 2
    assert judged(levelled) > judged(even) - 1


@pytest.mark.parametrize("name", ["chain", "mobile"])
def test_every_layer_has_one_step(name: str) -> None:
    graph = preparation.plan(nets.make(name))
    rounded = round_weights(graph, nets.pictures(40), ONE_STEP)
    for node in filter(_is_weighted, rounded.nodes):
        assert node.weights is not None
        kernel = node.weights.kernel.astype(np.float64)
        ratio = kernel / (np.abs(kernel).max() / 127)
        np.testing.assert_allclose(ratio, np.rint(ratio), atol=1e-4)


def test_factors_that_do_harm_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, pictures = preparation.plan(nets.make("chain")), nets.pictures(40)
    uneven_ones = np.geomspace(1, 100, 64)
    monkeypatch.setattr(one_step, "_factors", lambda balance: uneven_ones[: len(balance.peak)])
    assert one_step.equalise_for_one_step(graph, pictures[8:], pictures[:8]) is graph


def _is_weighted(node: Node) -> bool:
    return node.weights is not None
