"""LeakyReLUs as pairs of ReLUs: the same function, fewer roundings in real files."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nets
from kedge_convert import contract_builder
from kedge_convert.drift.layers import localise
from kedge_convert.export import flatbuffer
from kedge_convert.export.exported import Recipe
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.copyable import NetworkWork
from kedge_convert.prepare.equalise import measure
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.pairs import (
    PairGroup,
    pair_groups,
    pair_plan,
    paired,
    paired_shapes,
    slopes,
)
from kedge_convert.prepare.preparation import Rounding, round_weights
from kedge_convert.prepare.running import simulate
from kedge_convert.quantise import candidates, finer
from kedge_convert.quantise.candidates import CandidateModels, QuantisationOptions
from kedge_convert.quantise.effort import HIGH
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import require
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Geometry, Input, Label, Normalisation, Output
from kedge_runtime.engines.choice import open_engine

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

SPEC = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))


def graph_of(body: Callable[[Any, Any], Any]) -> Graph:
    """Return the graph of a body between an image and five logits."""
    keras = require("keras")
    keras.utils.set_random_seed(3)
    image = keras.Input((nets.SIDE, nets.SIDE, 3))
    value = keras.layers.GlobalAveragePooling2D()(body(keras.layers, image))
    return preparation.plan(keras.Model(image, keras.layers.Dense(5, name="logits")(value)))


def test_pairs_are_the_same_function() -> None:
    graph, images = preparation.plan(nets.make("leaky")), nets.pictures(4)
    groups = pair_groups(graph)
    made = paired(graph, groups)
    wanted = simulate(graph, images, integer=False)
    np.testing.assert_allclose(simulate(made, images, integer=False), wanted, atol=1e-5)
    np.testing.assert_allclose(made.build()(images), wanted, atol=1e-5)


def test_what_can_t_read_pairs_keeps_its_leaky_relu() -> None:
    graph = preparation.plan(nets.make("leaky"))
    groups = pair_groups(graph)
    # Both ends of the addition are one group. A depthwise reader can't add the two parts.
    assert [len(group.leaky) for group in groups] == [2, 1, 1, 1]
    left = [node for node in paired(graph, groups).nodes if slopes(node) is not None]
    assert len(left) == 1


def slope_layer(layers: Any, name: str) -> Any:
    made = {
        "leaky": lambda: layers.LeakyReLU(negative_slope=0.3),
        "relu": lambda: layers.ReLU(negative_slope=0.3),
        "prelu": lambda: layers.PReLU("random_normal", shared_axes=(1, 2)),
        "prelu by position": lambda: layers.PReLU("random_normal"),
        "relu6": lambda: layers.ReLU(6.0, negative_slope=0.3),
        "plain": lambda: layers.ReLU(),
    }
    return made[name]()


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("leaky", 1),
        ("relu", 1),
        ("prelu", 1),
        ("prelu by position", 0),
        ("relu6", 0),
        ("plain", 0),
    ],
)
def test_activations_with_one_slope_a_channel_become_pairs(name: str, pairs: int) -> None:
    def body(layers: Any, image: Any) -> Any:
        return layers.Conv2D(6, 1)(slope_layer(layers, name)(layers.Conv2D(8, 3)(image)))

    graph, images = graph_of(body), nets.pictures(3)
    groups = pair_groups(graph)
    assert len(groups) == pairs
    made = simulate(paired(graph, groups), images, integer=False)
    np.testing.assert_allclose(made, simulate(graph, images, integer=False), atol=1e-5)


def test_different_slopes_that_meet_stay() -> None:
    def body(layers: Any, image: Any) -> Any:
        parts = [
            layers.LeakyReLU(negative_slope=slope)(layers.Conv2D(8, 3)(image))
            for slope in (0.1, 0.2)
        ]
        return layers.Conv2D(6, 1)(layers.Add()(parts))

    assert pair_groups(graph_of(body)) == []


def test_a_plan_stays_within_the_work_and_begins_with_the_noisiest() -> None:
    graph, image = preparation.plan(nets.make("leaky")), nets.pictures(1)
    shapes, groups = measure(graph, image)[1], pair_groups(graph)
    noisiest = groups[1].leaky[0].output
    noises = {node.output: 1.0 for node in graph.nodes} | {noisiest: 1e6}
    plain = NetworkWork(graph, shapes).of({})
    previous: tuple[PairGroup, ...] = ()
    for most in (1.05, 1.3, 2.0, 9.0):
        plan = pair_plan(graph, shapes, noises, most)
        assert len(plan.groups) >= len(previous)
        assert plan.ratio <= most
        made = paired(graph, plan.groups)
        own = measure(made, image)[1]
        predicted = paired_shapes(shapes, plan.groups)
        assert all(predicted[tensor] == shape for tensor, shape in own.items())
        # The work of the network itself, counted by its own kernels and shapes.
        assert NetworkWork(made, own).of({}) == pytest.approx(plan.ratio * plain)
        previous = plan.groups
        if most == 1.3:
            assert noisiest in {tensor for group in plan.groups for tensor in group.tensors}
    assert len(previous) == len(groups)


def models_of(photos: Sequence[Path], form: str, work: float = 9.0) -> CandidateModels:
    """Return the models of the net as a conversion prepares them."""
    model = nets.make("leaky")
    labels = tuple(Label(str(i), str(i)) for i in range(model.output_shape[-1]))
    source = Source("leaky", model, SPEC, Output("logits"), labels, "")
    options = QuantisationOptions(formats=(form,), effort=replace(HIGH, pairs=work, copies=1.0))
    with Progress(silent=True) as progress:
        return candidates.prepare(source, ImageSplit(tuple(photos), ()), options, progress)


def images_of(photos: Sequence[Path]) -> Floats:
    return np.concatenate(list(tensors(photos, SPEC)))


def int8(models: CandidateModels, graph: Graph, form: str) -> bytes:
    """Return the file of a graph's rounded weights, as a conversion makes it."""
    (grids,) = models.prepared
    source = replace(models.prepared[grids], model=graph.build())
    one = replace(models, prepared={grids: source}, methods={(grids, "prepared"): ("minmax",)})
    with Progress(silent=True) as progress:
        return candidates.ranged(Target(form, "int8"), one, progress).content


def operators(form: str, content: bytes) -> Counter[str]:
    """Count the kinds of a file's operators."""
    if form == "tflite":
        return Counter(name for name, _ in flatbuffer.operators(flatbuffer.unpack(content)))
    return Counter(node.op_type for node in require("onnx").load_from_string(content).graph.node)


def noise(wanted: Floats, found: Floats) -> float:
    """Return the mean squared error but for what rounding the output itself adds."""
    step = (max(float(wanted.max()), 0.0) - min(float(wanted.min()), 0.0)) / 255
    return float(np.square(found - wanted, dtype=np.float64).mean() - step**2 / 12)


LEAKY = {"tflite": "LEAKY_RELU", "onnx": "LeakyRelu"}


@pytest.mark.slow
def test_real_files_keep_the_gain(form: str, pictures: Path) -> None:
    photos = sorted(pictures.iterdir())
    models, images = models_of(photos, form), images_of(photos)
    graph = models.equalised
    wanted = simulate(graph, images, integer=False)
    noises, kinds = [], []
    for each in (graph, paired(graph, pair_groups(graph))):
        content = int8(models, round_weights(each, images, Rounding(0)), form)
        found = nets.answers(models.stock, form, content, photos)
        noises.append(noise(wanted, found))
        kinds.append(operators(form, content))
    assert [kind[LEAKY[form]] for kind in kinds] == [6, 1]
    # Four groups of five: without the roundings before and behind each LeakyReLU.
    assert noises[1] < 0.95 * noises[0]


@pytest.mark.slow
def test_a_conversion_plans_pairs_and_says_which(form: str, pictures: Path) -> None:
    models, target = models_of(sorted(pictures.iterdir()), form, 1.5), Target(form, "int8")
    with Progress(silent=True) as progress:
        plain = candidates.ranged(target, models, progress)
        state = finer.finer(models, progress)
        plan = state.plan
        assert plan is not None
        assert plan.pairs
        assert 1 < plan.ratio <= 1.5
        worse = replace(plain, kl=plain.kl + 1.0)
        won = finer.closest(target, state, worse, progress)
    assert any(layer.endswith(" +-") for layer in won.recipe.copied_layers)
    assert operators(form, won.content)[LEAKY[form]] < 6
    assert any("pairs" in note for note in won.notes)


@pytest.mark.slow
def test_drift_by_layer_leaves_pairs_out(pictures: Path, tmp_path: Path) -> None:
    photos, form = sorted(pictures.iterdir()), "tflite"
    models = models_of(photos, form)
    plan = finer.fine_plan(models.equalised, images_of(photos), replace(HIGH, pairs=1.5))
    graph = round_weights(plan.applied(models.equalised), images_of(photos), Rounding(0))
    path = tmp_path / f"pairs.{form}"
    path.write_bytes(int8(models, graph, form))
    layers = finer.copied_layers(models.equalised, plan)
    recipe = Recipe("int8", "prepared", "minmax", copied_layers=layers)
    engine = open_engine(read_content(path))
    target = Target(form, "int8")
    contract = contract_builder.contract_of(models.stock, target, engine, models.images, recipe)
    found = localise(path, contract, models.stock.model, photos[:8])
    assert found.layers
    assert found.unmatched
    # No pair was taken for the LeakyReLU's own output, which it is not.
    assert {each.layer: each.own_sqnr for each in found.layers if each.own_sqnr <= 20} == {}, layers
