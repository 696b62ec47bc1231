"""One kernel for all calls of a layer: the same function, one rounding, the same integers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nets
from kedge_convert.export import flatbuffer
from kedge_convert.export.exported import ExportOptions
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import ImageSplit, tensors
from kedge_convert.prepare import preparation, shared
from kedge_convert.prepare.equalise import groups, measure, scaled
from kedge_convert.prepare.graph import Graph, Node, trace
from kedge_convert.prepare.preparation import Rounding, affordable, round_weights
from kedge_convert.prepare.rounding import flatten, plain, restore
from kedge_convert.prepare.running import simulate
from kedge_convert.program.preparable import preparable
from kedge_convert.source import Source
from kedge_convert.toolkit import require
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Output
from kedge_runtime.engines.choice import open_engine

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

# The layers of each net that are called twice, and have one kernel for both calls.
SHARED = {
    "recurrent": ["wide", "depthwise", "narrow"],
    "pyramid": ["head", "last"],
    "nested_twice": ["shared"],
    "shared_separable": ["shared_depthwise", "shared"],
    "grouped": [],
}


def names(graph: Graph) -> list[str]:
    return [group[0].layer.name for group in shared.calls(graph.nodes)]


@pytest.mark.parametrize("name", SHARED)
def test_the_calls_of_a_layer_share_a_kernel(name: str) -> None:
    graph = preparation.plan(nets.make(name))
    assert names(graph) == SHARED[name]
    for group in shared.calls(graph.nodes):
        assert len(group) == 2
        assert len({id(node.layer) for node in group}) == 2


def test_norms_of_their_own_make_two_kernels_of_one() -> None:
    keras = require("keras")
    layers, image = keras.layers, keras.Input((nets.SIDE, nets.SIDE, 3))
    conv = layers.Conv2D(6, 3, use_bias=False)
    factors = [keras.initializers.Constant(each) for each in (0.5, 2.0)]
    ends = [layers.BatchNormalization(gamma_initializer=each)(conv(image)) for each in factors]
    model = keras.Model(image, layers.Flatten()(layers.Maximum()(ends)))
    graph, pictures = preparation.plan(model), nets.pictures(5)
    assert names(graph) == []
    assert sum(node.weights is not None for node in graph.nodes) == 2
    np.testing.assert_allclose(graph.build()(pictures), model(pictures), atol=1e-5)


def uneven(name: str) -> Graph:
    """Return a net's graph with channels of very different ranges."""
    model, rng = nets.make(name), np.random.default_rng(9)
    for layer in model.layers:
        if type(layer).__name__ in ("Conv2D", "DepthwiseConv2D"):
            kernel, *bias = layer.get_weights()
            axis = 2 if type(layer).__name__ == "DepthwiseConv2D" else 3
            shape = [1, 1, 1, 1]
            shape[axis] = kernel.shape[axis]
            factor = np.exp(rng.uniform(-2.5, 0, kernel.shape[axis]))
            layer.set_weights([kernel * factor.reshape(shape), *(each * factor for each in bias)])
    return preparation.plan(model)


@pytest.mark.parametrize("name", ["recurrent", "pyramid", "shared_separable"])
def test_equalisation_keeps_the_function_and_the_sharing(
    name: str,
) -> None:
    graph, pictures = uneven(name), nets.pictures(30)
    channels, shapes = measure(graph, pictures)
    equalised = scaled(graph, channels, shapes, 1.0)
    assert names(equalised) == names(graph) == SHARED[name]
    moved = [
        not np.array_equal(one.weights.kernel, other.weights.kernel)
        for one, other in zip(graph.nodes, equalised.nodes, strict=True)
        if one.weights is not None and other.weights is not None
    ]
    assert any(moved)
    others = nets.pictures(10, seed=1) * np.float32(2)
    wanted = np.asarray(graph.build()(others))
    found = np.asarray(equalised.build()(others))
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_calls_of_a_kernel_are_in_one_group_of_scales() -> None:
    graph = preparation.plan(nets.make("recurrent"))
    _, shapes = measure(graph, nets.pictures(4))
    found = groups(graph, shapes)
    for same in shared.calls(graph.nodes):
        outputs = {node.output for node in same}
        assert [outputs <= set(group.tensors) for group in found].count(True) == 1


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", ["recurrent", "pyramid", "nested_twice", "shared"])
def test_a_prepared_kernel_is_one_for_all_calls(name: str, per_channel: bool) -> None:
    graph, pictures = preparation.plan(nets.make(name)), nets.pictures(60)
    equalised = preparation.equalised(graph, pictures, per_channel=per_channel)
    rounding = Rounding(grids=preparation.Grids(per_channel=per_channel))
    rounded = round_weights(equalised, pictures, rounding)
    assert names(rounded) == names(graph)
    before = {node.output: node for node in equalised.nodes}
    for group in shared.calls(rounded.nodes):
        for node in group:
            assert not np.array_equal(kernel(node), kernel(before[node.output]))


def kernel(node: Node) -> Any:
    assert node.weights is not None
    return node.weights.kernel


def test_a_call_that_stays_float_keeps_its_kernel() -> None:
    graph, pictures = preparation.plan(nets.make("pyramid")), nets.pictures(60)
    first, second = shared.calls(graph.nodes)[0]
    rounded = round_weights(graph, pictures, Rounding(floats=frozenset({first.output})))
    found = {node.output: kernel(node) for node in rounded.nodes if node.weights is not None}
    np.testing.assert_array_equal(found[first.output], kernel(first))
    assert not np.array_equal(found[second.output], kernel(first))


def twice() -> Any:
    """A wide layer that is called on two inputs of different kinds."""
    keras = require("keras")
    keras.utils.set_random_seed(0)
    layers, image = keras.layers, keras.Input((nets.SIDE, nets.SIDE, 3))
    first = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    second = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(image))
    both = layers.Conv2D(8, 3, name="both")
    ends = [layers.GlobalMaxPooling2D()(both(each)) for each in (first, second)]
    return keras.Model(image, layers.Concatenate()(ends))


def test_a_shared_kernel_beats_the_nearest_over_all_calls() -> None:
    graph, others = preparation.plan(twice()), nets.pictures(60, seed=1)
    starts = frozenset(node.output for node in graph.nodes if node.layer.name != "both")
    calls = shared.calls(graph.nodes)[0]
    assert [node.layer.name for node in calls] == ["both", "both"]
    readable = starts - {node.inputs[0] for node in calls} | {graph.input}
    rounded = round_weights(graph, nets.pictures(160), Rounding(floats=readable))
    found = shared.calls(rounded.nodes)[0]
    values: dict[Any, Any] = {graph.input: others}
    for node in graph.nodes:
        values[node.output] = node.run(values.__getitem__)
    errors = np.zeros(2)
    for node, prepared in zip(calls, found, strict=True):
        assert node.weights is not None
        flat = flatten(node.weights).astype(np.float64)
        weights = replace(node.weights, kernel=restore(plain(flat), node.weights))
        value = np.asarray(values[node.inputs[0]])
        wanted = np.asarray(node.linear(value))
        for i, each in enumerate((prepared, replace(node, weights=weights))):
            error = np.asarray(each.linear(value)) - wanted
            errors[i] += error.reshape(-1, error.shape[-1]).var(axis=0).mean()
    assert errors[0] < 0.8 * errors[1]


def test_memory_for_the_inputs_of_further_calls_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = preparation.plan(nets.make("pyramid"))
    ahead = shared.size(graph, shared.inputs_of(shared.calls(graph.nodes)))
    assert ahead == 2 * 6 * 6 * 8  # what both layers read of the finer images
    with_ahead = affordable(graph, 10**9)
    monkeypatch.setattr(shared, "calls", lambda nodes: [])
    assert with_ahead < affordable(graph, 10**9)


def source_of(name: str) -> Source:
    spec = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))
    return Source(name, nets.make(name), spec, Output(), (), "")


@pytest.mark.parametrize("name", ["recurrent", "pyramid"])
def test_the_float_program_leads_to_the_same_calls(name: str, pictures: Path) -> None:
    source = source_of(name)
    photos = tuple(sorted(pictures.iterdir()))
    found = preparable(source, ImageSplit(photos, photos))
    assert found.source is not None
    assert found.source.model is not source.model
    graph = preparation.plan(found.source.model)
    assert len(names(graph)) == len(SHARED[name])
    values = np.concatenate(list(tensors(photos, source.input)))
    np.testing.assert_allclose(
        simulate(graph, values, integer=False),
        simulate(trace(source.model), values, integer=False),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["recurrent", "pyramid"])
def test_files_hold_a_shared_kernel_as_stock_ones_do(name: str, form: str, pictures: Path) -> None:
    """TFLite once, ONNX for each call: onnxruntime can't add precisely by shared weights."""
    photos, source = tuple(sorted(pictures.iterdir())), source_of(name)
    values = np.concatenate(list(tensors(photos, source.input)))
    graph = preparation.equalised(preparation.plan(source.model), values)
    model = round_weights(graph, values, Rounding()).build()
    options = ExportOptions(photos)
    stock, prepared = (
        FORMATS[form].export(each, "int8", options).content
        for each in (source, replace(source, model=model))
    )
    assert stored(form, prepared) == stored(form, stock)
    weighted = [node for node in graph.nodes if node.weights is not None]
    spared = len(SHARED[name]) if form == "tflite" else 0
    assert len(stored(form, prepared)) == len(weighted) - spared
    for content in (stock, prepared):
        assert open_engine(ModelContent(Path(f"model.{form}"), form, content)).note == ""


def stored(form: str, content: bytes) -> list[int]:
    """Return the sizes of a file's int8 kernels, in bytes."""
    if form == "onnx":
        onnx = pytest.importorskip("onnx")
        constants = onnx.load_from_string(content).graph.initializer
        kernels = [onnx.numpy_helper.to_array(each) for each in constants if len(each.dims) > 1]
        return sorted(each.nbytes for each in kernels if each.dtype == np.int8)
    model = flatbuffer.unpack(content)
    buffers = {
        int(tensor.buffer)
        for tensor in model.subgraphs[0].tensors
        if tensor.type == flatbuffer.schema().TensorType.INT8 and len(tensor.shape) > 1
    }
    sizes = (model.buffers[each].data for each in buffers)
    return sorted(len(each) for each in sizes if each is not None and len(each))
