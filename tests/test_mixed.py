"""Mixed precision on real engines: what costs most, where it is in a file, what stays float."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nets
from kedge_convert.export.exported import ExportOptions, Ranges
from kedge_convert.export.formats import FORMATS
from kedge_convert.images import tensors
from kedge_convert.prepare import preparation
from kedge_convert.prepare.graph import Graph
from kedge_convert.quantise import naming, search
from kedge_convert.quantise.ranges import Histogram, minmax
from kedge_convert.quantise.static import STATIC
from kedge_convert.source import Source
from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Geometry, Input, Normalisation, Output

pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

pytestmark = pytest.mark.slow

NETS = ("mobile", "squeeze_excite")


class Exported:
    """A net's float file in a format, its graph and its min-max ranges over the pictures."""

    def __init__(self, name: str, form: str, pictures: Path) -> None:
        spec = Input(Geometry(nets.SIDE, nets.SIDE), Normalisation("rgb", 127.5, (1.0, 1.0, 1.0)))
        self.form, self.photos = form, sorted(pictures.iterdir())
        self.graph: Graph = preparation.plan(nets.make(name))
        self.source = Source(name, self.graph.build(), spec, Output("logits"), (), "")
        self.floats = STATIC[form].floats(self.source)
        self.first = next(tensors(self.photos, spec))
        self.values = np.concatenate(list(tensors(self.photos, spec)))

    @cached_property
    def ranges(self) -> Ranges:
        """Every tensor's least and greatest value."""
        found: dict[str, Histogram] = {}
        pictures = tensors(self.photos, self.source.input)
        STATIC[self.form].observe(
            self.floats, pictures, lambda n, x: found.setdefault(n, Histogram()).add(x)
        )
        return {name: minmax(one) for name, one in found.items()}

    @cached_property
    def places(self) -> naming.TensorNames:
        return naming.tensor_names(self.graph, STATIC[self.form], self.floats, self.first)

    def answers(self, content: bytes) -> Floats:
        """Return the outputs of one of its files on all pictures."""
        return nets.answers(self.source, self.form, content, self.photos)


@pytest.fixture(scope="module", params=NETS)
def exported(request: pytest.FixtureRequest, form: str, pictures: Path) -> Exported:
    return Exported(request.param, form, pictures)


def test_every_kernel_s_output_is_found(exported: Exported) -> None:
    places = exported.places
    for node in exported.graph.nodes:
        if node.weights is not None:
            assert places.names[node.output], node.layer.name


def test_min_and_max_is_what_the_stock_quantiser_takes(exported: Exported) -> None:
    """The ranges reach the file: the same as stock's give the same answers."""
    stock = FORMATS[exported.form].export(
        exported.source, "int8", ExportOptions(tuple(exported.photos))
    )
    own = STATIC[exported.form].quantise(exported.floats, exported.ranges)
    wanted, found = (exported.answers(each) for each in (stock.content, own))
    steps = np.ptp(wanted) / 255
    assert np.abs(wanted - found).max() <= 3 * steps
    assert len(own) == pytest.approx(len(stock.content), rel=0.02)


def test_halving_the_ranges_changes_the_answers(exported: Exported) -> None:
    """The comparison above can fail."""
    ranges = exported.ranges
    halved = {n: replace(r, low=r.low / 2, high=r.high / 2) for n, r in ranges.items()}
    static = STATIC[exported.form]
    contents = [static.quantise(exported.floats, each) for each in (ranges, halved)]
    wanted, found = (exported.answers(each) for each in contents)
    assert np.abs(wanted - found).max() > 6 * np.ptp(wanted) / 255


def test_what_is_kept_is_float_and_nothing_else(exported: Exported) -> None:
    parts = search.parts(exported.graph, exported.values[:8])
    around = exported.places.around([parts[0].tensor])
    ranges = exported.ranges
    plain, some = (
        STATIC[exported.form].quantise(exported.floats, ranges, kept)
        for kept in (frozenset[str](), around)
    )
    operators = STATIC[exported.form].operators(exported.floats)
    assert 0 < len(around) < len(operators)
    assert float_kernels(exported.form, plain) == 0
    assert 0 < float_kernels(exported.form, some) <= len(parts[0].layers)


def test_all_kept_is_the_float_net(exported: Exported) -> None:
    every = search.parts(exported.graph, exported.values[:8])
    around = exported.places.around(part.tensor for part in every)
    mixed_file = STATIC[exported.form].quantise(exported.floats, exported.ranges, around)
    wanted = exported.source.logits(tensors(exported.photos, exported.source.input))
    found = exported.answers(mixed_file)
    # The ends stay int8 where the format has integers in and out.
    assert np.abs(wanted - found).max() <= 4 * np.ptp(wanted) / 255


def test_an_activation_with_an_outlier_costs_most() -> None:
    """A channel a hundred times as large as the others leaves them few steps."""
    graph = preparation.plan(nets.make("chain"))
    spoilt = next(node for node in graph.nodes if node.layer.name == "pointwise")
    assert spoilt.weights is not None
    bias = spoilt.weights.bias.copy()
    bias[0] += 100
    worse = replace(spoilt, weights=replace(spoilt.weights, bias=bias))
    nodes = [worse if node is spoilt else node for node in graph.nodes]
    parts = search.parts(graph.with_nodes(nodes), nets.pictures(8))
    noise = {part.layers[0]: part.noise for part in parts}
    assert noise["pointwise"] > 100 * max(noise["first"], noise["depthwise"])
    worth = [part.noise / part.size for part in parts]
    assert worth == sorted(worth, reverse=True)


def float_kernels(form: str, content: bytes) -> int:
    """Return how many convolutions and dense layers of a file compute in float."""
    return sum(COUNTS[form](content).values())


def _tflite(content: bytes) -> Counter[str]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    types = {each["index"]: each["dtype"] for each in interpreter.get_tensor_details()}
    names = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return Counter(
        each["op_name"]
        for each in interpreter._get_ops_details()
        if each["op_name"] in names and types[each["outputs"][0]] is np.float32
    )


def _onnx(content: bytes) -> Counter[str]:
    onnx: Any = pytest.importorskip("onnx")
    graph = onnx.load_from_string(content).graph
    constants = {each.name for each in graph.initializer}

    def plain() -> Iterator[str]:
        for node in graph.node:
            if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in constants:
                yield node.op_type

    return Counter(plain())


COUNTS = {"tflite": _tflite, "onnx": _onnx}
