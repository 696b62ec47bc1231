"""Ranges by what the answers lose: clipped ends, but never the input's or the output's."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nets
from kedge_convert.export.exported import Range, Ranges
from kedge_convert.images import ImageSplit
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor
from kedge_convert.prepare.running import fold_over
from kedge_convert.quantise.answers import (
    SHARES,
    Draw,
    _clipped,
    answer_ranges,
    leaky_inputs,
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


def limits(graph: Graph, images: Floats) -> dict[GraphTensor, Range]:
    """Return the range of every tensor's values."""
    found: dict[GraphTensor, tuple[float, float]] = {}

    def visit(tensor: GraphTensor, value: Floats) -> None:
        low, high = found.get(tensor, (0.0, 0.0))
        found[tensor] = min(low, float(value.min())), max(high, float(value.max()))

    fold_over(graph, images, visit)
    return {tensor: Range.over(*ends) for tensor, ends in found.items()}


def test_the_side_that_a_slope_makes_small_is_cut_off_and_no_other() -> None:
    graph, images = preparation.plan(nets.make("leaky")), nets.pictures(60)
    every = limits(graph, images)
    before = {tensor: every[tensor] for tensor in leaky_inputs(graph)}
    assert len(before) == sum(type(node.layer).__name__ == "LeakyReLU" for node in graph.nodes)
    found = answer_ranges(graph, images, softmax_draw, before)
    assert set(found) == set(before)
    shares = np.array([found[each].low / every[each].low for each in before])
    assert (shares >= 0.1 - 1e-6).all()
    assert shares.mean() < 0.95
    assert all(found[each].high == every[each].high for each in before)


def test_a_tensor_that_no_answer_needs_keeps_its_range() -> None:
    graph, images = preparation.plan(nets.make("leaky")), nets.pictures(20)
    lone = GraphTensor(10_000)
    node = replace(graph.nodes[0], output=lone)
    ends = {lone: Range(-3.0, 4.0)}
    assert answer_ranges(graph.with_nodes([node, *graph.nodes]), images, softmax_draw, ends) == ends


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
    content, images = STATIC["tflite"].floats(source), ImageSplit(tuple(photos), ())
    ends: Ranges = defaultdict(lambda: Range(-100.0, 100.0))
    found = program_ranges(source, content, images, ends)
    assert len(found) >= len(leaky_inputs(preparation.plan(model)))
    name = next(iter(found))
    full = Histogram()
    full.add(np.array([-100.0, 100.0], np.float32))
    observed = Observed({name: full, "other": full}, found)
    renamed = observed.named({"a": name, "b": "other"})
    ranges = choose(BY_ANSWERS, renamed)
    assert ranges["a"] == found[name]
    assert (ranges["b"].low, ranges["b"].high) == (-100.0, 100.0)
    assert choose(BY_ANSWERS, observed | Observed({}))[name] == found[name]


def test_what_lies_beyond_each_share_is_summed_exactly() -> None:
    rng = np.random.default_rng(5)
    value, gradient = (rng.normal(0, 1, (3, 500)).astype(np.float32) for _ in range(2))
    end = float(value.max())
    wanted = [
        [(pulls * np.maximum(own - end * share, 0)).sum(dtype=np.float64) for share in SHARES]
        for own, pulls in zip(value, gradient, strict=True)
    ]
    np.testing.assert_allclose(list(_clipped(value, gradient, end)), wanted, atol=1e-4)


def test_a_network_without_leaky_relu_has_none(pictures: Path) -> None:
    model, photos = nets.make("mobile"), sorted(pictures.iterdir())
    labels = tuple(Label(str(i), str(i)) for i in range(model.output_shape[-1]))
    source = Source("mobile", model, SPEC, Output("logits"), labels, "")
    assert program_ranges(source, b"", ImageSplit(tuple(photos), ()), {}) == {}
