"""Ranges by what the answers lose: clipped ends, but never the input's or the output's."""

from pathlib import Path

import numpy as np
import pytest

import nets
from kedge_convert.images import ImageSplit
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor, fold_over
from kedge_convert.quantise.answers import (
    Draw,
    answer_ranges,
    program_ranges,
    sigmoid_draw,
    softmax_draw,
)
from kedge_convert.quantise.ranges import BY_ANSWERS, Histogram, Observed, choose
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Geometry, Input, Label, Normalisation, Output

tf = pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SPEC = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))


def limits(graph: Graph, images: Floats) -> dict[GraphTensor, tuple[float, float]]:
    """Return the least and the greatest value of every tensor, zero among them."""
    found: dict[GraphTensor, tuple[float, float]] = {}

    def visit(tensor: GraphTensor, value: Floats) -> None:
        low, high = found.get(tensor, (0.0, 0.0))
        found[tensor] = min(low, float(value.min())), max(high, float(value.max()))

    fold_over(graph, images, visit)
    return found


def test_ends_lie_within_those_of_the_images() -> None:
    graph, images = preparation.plan(nets.make("leaky")), nets.pictures(30)
    found, every = answer_ranges(graph, images, softmax_draw), limits(graph, images)
    assert graph.input not in found
    assert graph.output not in found
    assert set(found) == {node.output for node in graph.nodes} - {graph.output}
    for tensor, one in found.items():
        low, high = every[tensor]
        assert low - 1e-6 <= one.low <= 0.2 * low + 1e-6
        assert 0.2 * high - 1e-6 <= one.high <= high + 1e-6


def test_the_side_that_a_slope_makes_small_is_cut_off_more() -> None:
    graph, images = preparation.plan(nets.make("leaky")), nets.pictures(60)
    found, every = answer_ranges(graph, images, softmax_draw), limits(graph, images)
    before = [node.inputs[0] for node in graph.nodes if type(node.layer).__name__ == "LeakyReLU"]
    shares = np.array(
        [
            (found[tensor].low / every[tensor][0], found[tensor].high / every[tensor][1])
            for tensor in before
        ]
    )
    assert shares[:, 0].mean() < shares[:, 1].mean() - 0.05


@pytest.mark.parametrize("draw", [softmax_draw, sigmoid_draw])
def test_draws_have_the_covariance_of_the_answers(draw: Draw) -> None:
    logits, rng = tf.constant([[1.0, 0.2, -2.0]]), np.random.default_rng(0)
    gradients = []
    for _ in range(3000):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            answer = draw(logits, rng)
        gradients.append(np.asarray(tape.gradient(answer, logits))[0])
    found = np.stack(gradients).T @ np.stack(gradients) / len(gradients)
    if draw is softmax_draw:
        p = np.asarray(tf.nn.softmax(logits))[0]
        wanted = np.diag(p) - np.outer(p, p)
    else:
        p = np.asarray(tf.sigmoid(logits))[0]
        wanted = np.diag(p * (1 - p))
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_other_names_keep_their_ranges(pictures: Path) -> None:
    photos, model = sorted(pictures.iterdir()), nets.make("leaky")
    labels = tuple(Label(str(i), str(i)) for i in range(model.output_shape[-1]))
    source = Source("leaky", model, SPEC, Output("logits"), labels, "")
    found = program_ranges(source, STATIC["tflite"].floats(source), ImageSplit(tuple(photos), ()))
    assert len(found) >= len(preparation.plan(model).nodes) - 1
    name = next(iter(found))
    full = Histogram()
    full.add(np.array([-100.0, 100.0], np.float32))
    observed = Observed({name: full, "other": full}, {name: full, "other": full}, found)
    renamed = observed.named({"a": name, "b": "other"})
    ranges = choose(BY_ANSWERS, renamed)
    assert ranges["a"] == found[name]
    assert (ranges["b"].low, ranges["b"].high) == (-100.0, 100.0)
    assert choose(BY_ANSWERS, observed | Observed({}, {}))[name] == found[name]
