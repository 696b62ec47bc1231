"""Ranges by what the answers lose: clipped ends, but never the input's or the output's."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nets
from kedge_convert.export.exported import Range, Ranges
from kedge_convert.images import ImageSplit
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph, GraphTensor, fold_over
from kedge_convert.quantise import answers
from kedge_convert.quantise.answers import (
    SHARES,
    Draw,
    _clipped,
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


def limits(graph: Graph, images: Floats) -> dict[GraphTensor, Range]:
    """Return the range of every tensor's values."""
    found: dict[GraphTensor, tuple[float, float]] = {}

    def visit(tensor: GraphTensor, value: Floats) -> None:
        low, high = found.get(tensor, (0.0, 0.0))
        found[tensor] = min(low, float(value.min())), max(high, float(value.max()))

    fold_over(graph, images, visit)
    return {tensor: Range.over(*ends) for tensor, ends in found.items()}


def test_ends_lie_within_those_of_the_images() -> None:
    graph, images = preparation.plan(nets.make("leaky")), nets.pictures(30)
    every = limits(graph, images)
    found = answer_ranges(graph, images, softmax_draw, every)
    assert graph.input not in found
    assert graph.output not in found
    assert set(found) == {node.output for node in graph.nodes} - {graph.output}
    for tensor, one in found.items():
        low, high = every[tensor].low, every[tensor].high
        assert low - 1e-6 <= one.low <= 0.2 * low + 1e-6
        assert 0.2 * high - 1e-6 <= one.high <= high + 1e-6


def test_the_side_that_a_slope_makes_small_is_cut_off_more() -> None:
    graph, images = preparation.plan(nets.make("leaky")), nets.pictures(60)
    every = limits(graph, images)
    found = answer_ranges(graph, images, softmax_draw, every)
    before = [node.inputs[0] for node in graph.nodes if type(node.layer).__name__ == "LeakyReLU"]
    shares = np.array(
        [
            (found[tensor].low / every[tensor].low, found[tensor].high / every[tensor].high)
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
    content, images = STATIC["tflite"].floats(source), ImageSplit(tuple(photos), ())
    ends: Ranges = defaultdict(lambda: Range(-100.0, 100.0))
    found = program_ranges(source, content, images, ends)
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


def test_what_lies_beyond_each_share_is_summed_exactly() -> None:
    rng = np.random.default_rng(5)
    value, gradient = (rng.normal(0, 1, (3, 500)).astype(np.float32) for _ in range(2))
    end = float(value.max())
    wanted = [
        [(pulls * np.maximum(own - end * share, 0)).sum(dtype=np.float64) for share in SHARES]
        for own, pulls in zip(value, gradient, strict=True)
    ]
    np.testing.assert_allclose(list(_clipped(value, gradient, end)), wanted, atol=1e-4)


def test_a_network_without_gradients_keeps_its_ranges(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nets.make("leaky")
    source = Source("leaky", model, SPEC, Output("logits"), (), "")
    images = ImageSplit(tuple(sorted(pictures.iterdir())), ())
    content = STATIC["tflite"].floats(source)
    ends: Ranges = defaultdict(lambda: Range(-9.0, 9.0))
    assert program_ranges(source, content, images, ends)
    with monkeypatch.context() as patched:
        patched.setattr(answers, "AFFORDABLE", 1)
        assert not program_ranges(source, content, images, ends)

    def hue(logits: Any, rng: np.random.Generator) -> Any:
        return tf.reduce_sum(tf.image.adjust_hue(tf.tile(logits[..., None], (1, 1, 3)), 0.1))

    with tf.GradientTape() as tape, pytest.raises(LookupError, match="no entry for: AdjustHue"):
        tape.watch(logits := tf.ones((1, 5)))
        tape.gradient(hue(logits, np.random.default_rng(0)), logits)
    monkeypatch.setattr(answers, "softmax_draw", hue)
    assert not program_ranges(source, content, images, ends)
