"""Copied channels: the same function, finer steps in real files, and never a loser."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nets
from conftest import Run
from kedge_convert import contract_builder
from kedge_convert.drift.layers import localise
from kedge_convert.export import flatbuffer
from kedge_convert.export.exported import Recipe
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.copies import CopyError, copied, offsets
from kedge_convert.prepare.copyable import A_BYTE, Copies, NetworkWork, copy_groups, plans
from kedge_convert.prepare.equalise import measure
from kedge_convert.prepare.graph import Graph
from kedge_convert.prepare.preparation import Rounding, round_weights
from kedge_convert.prepare.running import quantised, simulate
from kedge_convert.quantise import candidates, finer, observing
from kedge_convert.quantise.candidates import CandidateModels, QuantisationOptions
from kedge_convert.quantise.effort import HIGH
from kedge_convert.quantise.finer import FinePlan
from kedge_convert.quantise.ranges import choose
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_convert.targets import Target
from kedge_convert.toolkit import require
from kedge_convert.worker.progress import Progress
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Geometry, Input, Label, Normalisation, Output
from kedge_runtime.artefact.file import read_artefact
from kedge_runtime.engines.choice import open_engine

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")


def everywhere(graph: Graph, count: int) -> Copies:
    """Return so many copies of every tensor that can be copied."""
    return {tensor: count for group in copy_groups(graph) for tensor in group.tensors}


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", nets.NETS)
def test_without_steps_copies_are_the_same_function(name: str, count: int) -> None:
    model, images = nets.make(name), nets.pictures(4)
    graph = preparation.plan(model)
    made = copied(graph, everywhere(graph, count)).build()
    np.testing.assert_allclose(made(images), model(images), atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_the_mean_of_rounded_copies_has_finer_steps_and_keeps_zero(count: int) -> None:
    steps = np.linspace(0, 255, 100_001)
    shifts = offsets(np.tile(np.arange(3), count))
    assert shifts is not None
    assert np.abs(shifts).max() < 0.5
    for channel in range(3):
        copies = [np.clip(np.rint(steps + shift), 0, 255) for shift in shifts[channel::3]]
        mean = np.mean(copies, axis=0)
        # But for the last step, above which nothing is written.
        inside = steps < 254.5
        assert np.abs(mean - steps)[inside].max() <= 0.5 / count + 1e-9
        assert mean[0] == 0
        assert mean[-1] >= 254.5


COPIED = {
    "chain": 2,  # first with its depthwise reader; pointwise with its pool
    "residual": 2,  # both ends of the addition in one
    "squeeze_excite": 3,
    "mobile": 4,
    "branches": 0,  # a concatenation
    "constants": 0,  # added to a number
    "own_activation": 0,  # a batch norm by itself
    "left_alone": 0,
}


@pytest.mark.parametrize(("name", "count"), COPIED.items())
def test_what_can_t_pass_copies_on_is_not_copied(name: str, count: int) -> None:
    graph = preparation.plan(nets.make(name))
    groups = copy_groups(graph)
    assert len(groups) == count
    touched = {tensor for group in groups for tensor in group.tensors}
    assert not touched & {graph.input, graph.output}


def test_copies_that_meet_single_channels_are_refused() -> None:
    graph = preparation.plan(nets.make("residual"))
    (group,) = (each for each in copy_groups(graph) if len(each.writers) > 1)
    with pytest.raises(CopyError, match="add"):
        copied(graph, {group.writers[0]: 2})
    graph = preparation.plan(nets.make("branches"))
    convolution = next(node for node in graph.nodes if node.weights)
    with pytest.raises(CopyError, match="concatenate"):
        copied(graph, {convolution.output: 2})
    with pytest.raises(CopyError, match="output"):
        copied(graph, {graph.nodes[-1].output: 2})


def test_plans_stay_within_the_work_and_begin_with_the_noisiest() -> None:
    graph, image = preparation.plan(nets.make("mobile")), nets.pictures(1)
    shapes, groups = measure(graph, image)[1], copy_groups(graph)
    noisiest = groups[1].tensors[0]
    noises = {each.output: 1.0 for each in graph.nodes} | {noisiest: 1e6}
    found = list(plans(graph, shapes, noises, 3.0))
    assert found[0].copies[noisiest] == 2
    assert all(1 < plan.ratio <= 3.0 for plan in found)
    assert [plan.ratio for plan in found] == sorted(plan.ratio for plan in found)
    work = NetworkWork(graph, shapes)
    for plan in found:
        real = copied(graph, plan.copies)
        # The work of the copied network itself, counted by its own kernels and shapes.
        own = NetworkWork(real, measure(real, image)[1])
        assert own.of({}) == work.of(plan.copies)
    assert not list(plans(graph, shapes, noises, 1.0))


def prepared(graph: Graph, images: Floats) -> Graph:
    return round_weights(graph, images, Rounding(0))


def noise(wanted: Floats, found: Floats) -> float:
    """Return the mean squared error but for what rounding the output itself adds."""
    step = (max(float(wanted.max()), 0.0) - min(float(wanted.min()), 0.0)) / 255
    return float(np.square(found - wanted, dtype=np.float64).mean() - step**2 / 12)


@pytest.mark.parametrize("name", ["mobile", "chain6", "residual"])
def test_simulated_copies_take_off_noise(name: str) -> None:
    graph, images = preparation.plan(nets.make(name)), nets.pictures(60)
    wanted = simulate(graph, images[40:], integer=False)
    single, double, four = (
        noise(wanted, simulate(prepared(each, images[:40]), images[40:], integer=True))
        for each in (graph, *(copied(graph, everywhere(graph, n)) for n in (2, 4)))
    )
    # What is left is the weights' noise, which is another one in each network.
    assert double < single
    assert four < 0.5 * single


def test_shifts_are_those_of_the_output_s_step() -> None:
    graph, images = preparation.plan(nets.make("chain")), nets.pictures(40)
    made = prepared(copied(graph, everywhere(graph, 2)), images)
    node = made.nodes[0]
    assert node.weights is not None
    halves = np.split(np.asarray(node.run({graph.input: images}.__getitem__)), 2, axis=-1)
    step = max(half.max() for half in halves) / 255
    active = (halves[0] > 0) & (halves[1] > 0)
    np.testing.assert_allclose((halves[1] - halves[0])[active], step / 2, rtol=0.02)
    mean = np.mean(np.split(quantised(node, np.concatenate(halves, -1)), 2, axis=-1), axis=0)
    assert np.sqrt(np.mean((mean - np.mean(halves, axis=0))[active] ** 2)) < 0.2 * step


SPEC = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))


def models_of(name: str, photos: Sequence[Path], form: str) -> CandidateModels:
    """Return the models of a net as a conversion prepares them."""
    model = nets.make(name)
    labels = tuple(Label(str(i), str(i)) for i in range(model.output_shape[-1]))
    source = Source(name, model, SPEC, Output("logits"), labels, "")
    options = QuantisationOptions(formats=(form,), effort=replace(HIGH, copies=2.0))
    split = ImageSplit(tuple(photos), ())
    with Progress(silent=True) as progress:
        return candidates.prepare(source, split, options, progress)


def images_of(photos: Sequence[Path]) -> Floats:
    return np.concatenate(list(tensors(photos, SPEC)))


def int8(models: CandidateModels, graph: Graph, form: str) -> bytes:
    """Return the file of a graph with prepared weights, by the range of all values."""
    (grids,) = models.prepared
    source = replace(models.prepared[grids], model=graph.build())
    floats = STATIC[form].floats(source)
    with Progress(silent=True) as progress:
        target = Target(form, "int8")
        seen = observing.observed(target, source, floats, models.images, progress)
    return STATIC[form].quantise(floats, choose("minmax", seen))


def operators(form: str, content: bytes) -> Counter[str]:
    """Count the kinds of a file's operators."""
    if form == "tflite":
        return Counter(name for name, _ in flatbuffer.operators(flatbuffer.unpack(content)))
    return Counter(node.op_type for node in require("onnx").load_from_string(content).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile", "residual", "squeeze_excite"])
def test_real_files_keep_the_gain(name: str, form: str, pictures: Path) -> None:
    photos = sorted(pictures.iterdir())
    models = models_of(name, photos, form)
    graph = models.equalised
    images = images_of(photos)
    wanted = simulate(graph, images, integer=False)
    noises, kinds = [], []
    for each in (graph, copied(graph, everywhere(graph, 2))):
        content = int8(models, prepared(each, images), form)
        noises.append(noise(wanted, nets.answers(models.stock, form, content, photos)))
        kinds.append(operators(form, content))
    assert kinds[0] == kinds[1]
    assert noises[1] < 0.7 * noises[0]


@pytest.mark.slow
def test_drift_by_layer_reads_the_mean_of_copies(form: str, pictures: Path, tmp_path: Path) -> None:
    photos = sorted(pictures.iterdir())
    models = models_of("mobile", photos, form)
    found = []
    for count in (1, 2):
        plan = FinePlan((), everywhere(models.equalised, count), 1.0 * count)
        layers = finer.copied_layers(models.equalised, plan)
        graph = prepared(copied(models.equalised, plan.copies), images_of(photos))
        path = tmp_path / f"{count}.{form}"
        path.write_bytes(int8(models, graph, form))
        contract = contract_for(models, path, layers)
        assert contract.schema == 1 + count
        assert Contract.from_json(contract.to_json()).provenance.copied == layers
        found.append(localise(path, contract, models.stock.model, photos[:8]))
    plain, double = found
    assert {layer.layer for layer in double.layers} >= {layer.layer for layer in plain.layers}
    assert len(double.unmatched) <= len(plain.unmatched)
    assert all(layer.own_sqnr > 20 for layer in double.layers)


def contract_for(models: CandidateModels, path: Path, layers: tuple[str, ...]) -> Contract:
    recipe = Recipe("int8", "prepared", "minmax", copied_layers=layers)
    engine, target = open_engine(read_content(path)), Target(path.suffix[1:], "int8")
    return contract_builder.contract_of(models.stock, target, engine, models.images, recipe)


@pytest.mark.slow
def test_a_loser_is_not_kept(form: str, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "confirmed", lambda *each: each[-1].distances)
    models, target = models_of("mobile", sorted(pictures.iterdir()), form), Target(form, "int8")
    with Progress(silent=True) as progress:
        plain = candidates.closest_weights(target, models, progress)
        plain = replace(plain, recipe=replace(plain.recipe, method="prepared"))
        state = finer.finer(models, progress)
        assert state.plan
        perfect = replace(plain, kl=np.zeros_like(plain.kl))
        assert finer.closest(target, state, perfect, progress) is perfect
        hopeless = replace(plain, kl=plain.kl + 1.0)
        won = finer.closest(target, state, hopeless, progress)
        # What is perfect on the selection images alone was lucky there.
        more = {True: np.ones(128), False: np.zeros(128)}
        monkeypatch.setattr(candidates, "confirmed", lambda *each: more[each[-1] is perfect])
        assert finer.closest(target, state, perfect, progress).recipe.copied_layers
    assert won.recipe.copied_layers
    assert won.content != plain.content
    assert any("copied channels" in note for note in won.notes)
    # Prepared once for both: the second call made nothing anew.
    assert len(state.made) == 1


@pytest.mark.slow
def test_stock_weights_get_no_copies(form: str, pictures: Path) -> None:
    models, target = models_of("branches", sorted(pictures.iterdir()), form), Target(form, "int8")
    with Progress(silent=True) as progress:
        stock = candidates.exported(target, models, progress, method="stock")
        state = finer.finer(models, progress)
        assert state.plan is None
        assert finer.closest(target, state, stock, progress) is stock


@pytest.mark.slow
def test_the_command_says_what_is_copied_and_its_price(kedge: Run, tmp_path: Path) -> None:
    code, printed, _ = kedge(
        "convert", "demo", "--to", "tflite:int8", "--effort", "high", "--out", tmp_path
    )
    assert code == 0
    (path,) = tmp_path.glob("*.tflite")
    layers = read_artefact(path).contract.provenance.copied
    assert ("copied channels" in printed) == bool(layers)
    code, printed, _ = kedge("inspect", path)
    assert code == 0
    assert all(name in printed for name in layers)


def test_a_transposed_convolution_multiplies_once_for_each_input() -> None:
    keras = require("keras")
    image = keras.Input((6, 6, 3))
    value = keras.layers.Conv2DTranspose(8, 3, strides=2, padding="same")(image)
    value = keras.layers.GlobalAveragePooling2D()(value)
    graph = preparation.plan(keras.Model(image, keras.layers.Dense(5)(value)))
    node = graph.nodes[0]
    lone = graph.with_nodes([node])
    work = NetworkWork(lone, measure(lone, nets.pictures(1)[:, :6, :6])[1]).of({})
    kernel, moved = 3 * 3 * 3 * 8, 6 * 6 * 3 + 12 * 12 * 8
    assert work == kernel * 6 * 6 + A_BYTE * (moved + kernel)
