"""Where a shipped file loses accuracy: a fault put into one layer is named by its Keras name.

The faults are written into the bytes of the file, so that what is looked into is what would ship.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Run
from kedge_convert.drift import layer_show, layers
from kedge_convert.drift.layers import advice
from kedge_convert.export.exported import ExportOptions
from kedge_convert.export.formats import FORMATS
from kedge_convert.load.request import SourceRequest
from kedge_convert.source import Source, load_source
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.contract import Contract, Output
from kedge_runtime.artefact.kinds import Method
from kedge_runtime.artefact.provenance import Provenance
from kedge_runtime.engines.choice import open_engine
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions
from test_prepared_integers import prepared, source_of

onnx: Any = pytest.importorskip("onnx", reason="the converter needs keras-kedge[convert]")
pytest.importorskip("tensorflow", reason="the converter needs TensorFlow")

Integers = NDArray[np.int8]


def kernels(form: str, path: Path) -> list[Integers]:
    """Return the int8 kernels in the file's order, in the layout that its bytes have."""
    return {"tflite": tflite_kernels, "onnx": onnx_kernels}[form](path)


def tflite_kernels(path: Path) -> list[Integers]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    names = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    operators = [each for each in interpreter._get_ops_details() if each["op_name"] in names]
    return [interpreter.get_tensor(int(each["inputs"][1])) for each in operators]


def onnx_kernels(path: Path) -> list[Integers]:
    graph = onnx.load(path).graph
    constants = {each.name: each for each in graph.initializer}
    origin = {name: node for node in graph.node for name in node.output}
    nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    found = [constants[origin[node.input[1]].input[0]] for node in nodes]
    return [onnx.numpy_helper.to_array(each) for each in found]


def coarse(kernel: Integers) -> Integers:
    """Return a kernel of three bits: 7 levels instead of 255."""
    step = 127 / 3
    return np.asarray(np.rint(np.rint(kernel / step) * step), np.int8)


def halved(kernel: Integers) -> Integers:
    """Return a kernel as if its scale were half of what it is."""
    return np.asarray(kernel // 2, np.int8)


def negated(kernel: Integers) -> Integers:
    """Return a kernel that gives nearly the opposite: a layer that nothing agrees with."""
    return np.asarray(-np.maximum(kernel, -127), np.int8)


def wrecked(form: str, path: Path, place: int, fault: Callable[[Integers], Integers]) -> Path:
    """Return a copy of the file with a fault in the kernel at `place` of the file's order."""
    kernel = kernels(form, path)[place]
    content = path.read_bytes()
    assert content.count(kernel.tobytes()) == 1
    broken = path.with_name(f"{fault.__name__}-{place}-{path.name}")
    broken.write_bytes(content.replace(kernel.tobytes(), fault(kernel).tobytes()))
    return broken


def shipped(source: Source, form: str, photos: list[Path], method: Method, folder: Path) -> Path:
    """Write an int8 file of a source, prepared or not."""
    made = prepared(source, photos) if method == "prepared" else source
    path = folder / f"{source.name}-{method}.{form}"
    path.write_bytes(FORMATS[form].export(made, "int8", ExportOptions(tuple(photos))).content)
    return path


Make = Callable[[str, str, Method], tuple[Source, Path, list[Path]]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Make:
    """Return what makes a net's int8 file, once: net, format, method -> source, file, images."""
    folder, photos = tmp_path_factory.mktemp("localise"), sorted(pictures.iterdir())

    @lru_cache
    def made(name: str, form: str, method: Method) -> tuple[Source, Path, list[Path]]:
        source = fresh(name)
        return source, shipped(source, form, photos, method, folder), photos

    return made


def contract_of(source: Source, path: Path, method: Method) -> Contract:
    form = path.suffix[1:]
    engine = open_engine(read_content(path))
    made = Provenance(source.name, source.weights_digest, "int8", f"{form}:int8", method=method)
    return Contract(replace(source.input, tensor=engine.input), Output("logits"), (), made)


def look(
    source: Source, path: Path, photos: list[Path], method: Method = "stock"
) -> layers.Localisation:
    contract = contract_of(source, path, method)
    return layers.localise(path, contract, source.model, photos)


# What the file shows of each net, in its order; a nested model's layers have its name before them.
SEEN = {
    "residual": ["conv2d", "conv2d_1", "conv2d_2", "add", "global_average_pooling2d", "logits"],
    "squeeze_excite": [
        *("conv2d", "global_average_pooling2d", "conv2d_1", "conv2d_2", "multiply", "conv2d_3"),
        *("global_average_pooling2d_1", "logits"),
    ],
    "shared": [
        *("max_pooling2d", "shared", "shared (call 2)", "add", "re_lu"),
        *("global_average_pooling2d", "logits"),
    ],
    "nested": [
        *("functional/conv2d", "functional/conv2d_1", "global_average_pooling2d", "logits"),
    ],
    "nested_twice": [
        *("functional/shared", "functional/shared (call 2)"),
        *("global_average_pooling2d", "logits"),
    ],
    "separable": ["separable_conv2d", "separable_conv2d_1", "global_average_pooling2d", "logits"],
    "mobile": [
        *("conv2d", "conv2d_1", "conv2d_2", "depthwise_conv2d", "conv2d_3", "add", "conv2d_4"),
        *("global_average_pooling2d", "logits"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stock", "prepared"])
@pytest.mark.parametrize("name", SEEN)
def test_every_layer_is_found(name: str, method: Method, form: str, make: Make) -> None:
    source, path, photos = make(name, form, method)
    found = look(source, path, photos, method)
    assert sorted(layer.layer for layer in found.layers) == sorted(SEEN[name])
    assert {layer.evidence for layer in found.layers} == {"value", "place"}
    # Nothing is wrong with these files: a wrong match or a wrong factor would leave less.
    assert min(layer.own_sqnr for layer in found.layers) > 25
    enlarged = max(layer.factor for layer in found.layers)
    assert enlarged == 1 if method == "stock" else enlarged >= 1


def fresh(name: str) -> Source:
    """Return the source of a net whose layers are numbered from the first."""
    from kedge_convert.toolkit import require

    require("keras").backend.clear_session()
    return source_of(name)


FAULTS = [
    ("residual", 1, "conv2d_1", coarse),
    ("residual", 1, "conv2d_1", negated),
    ("squeeze_excite", 1, "conv2d_1", coarse),
    ("nested", 1, "functional/conv2d_1", halved),
    ("mobile", 5, "conv2d_4", halved),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "place", "layer", "fault"), FAULTS)
def test_a_fault_is_named(
    name: str,
    place: int,
    layer: str,
    fault: Callable[[Integers], Integers],
    form: str,
    make: Make,
) -> None:
    source, path, photos = make(name, form, "stock")
    found = look(source, wrecked(form, path, place, fault), photos)
    assert found.layers[0].layer == layer
    assert found.layers[0].advice
    # The others are as good as they were: a fault is its layer's own.
    assert found.layers[1].own_sqnr > found.layers[0].own_sqnr + 6


def weighted_layers(model: Any) -> list[str]:
    """Return the names of the layers with kernels, in order."""
    return [
        layer.name
        for layer in model.layers
        if any(len(weight.shape) > 1 for weight in layer.weights)
    ]


@pytest.mark.slow
def test_a_fault_in_prepared_weights_is_among_the_worst(form: str, make: Make) -> None:
    """A channel's gain may be the fault or preparation: it shows at the layers that read it too."""
    source, path, photos = make("mobile", form, "prepared")
    found = look(source, wrecked(form, path, 2, coarse), photos, "prepared")
    low = {layer.layer for layer in found.layers[:3]}
    # Its writer and the readers after it, up to the addition, where no factor passes.
    assert low == {"conv2d_2", "depthwise_conv2d", "conv2d_3"}


@pytest.mark.slow
def test_a_fault_in_the_demo_is_named(form: str, pictures: Path, tmp_path: Path) -> None:
    """In the stock file: prepared ones show a fault of gain at the readers too, as said above."""
    source, photos = load_source(SourceRequest("demo")), sorted(pictures.iterdir())
    sound = shipped(source, form, photos, "stock", tmp_path)
    for place in (4, 13):
        found = look(source, wrecked(form, sound, place, coarse), photos[:8])
        assert found.layers[0].layer == weighted_layers(source.model)[place]
        assert found.layers[0].own_sqnr < 25 < found.layers[1].own_sqnr


@pytest.mark.slow
def test_a_fault_in_a_real_model_is_named(shared: Path, tmp_path: Path) -> None:
    model = shared / "data" / "models" / "mobilenet_0.25_224.keras"
    source = load_source(SourceRequest(str(model), card="MobileNet-0.25"))
    photos = sorted((shared / "data" / "images").iterdir())[::25]
    path = shipped(source, "tflite", photos[:12], "stock", tmp_path)
    sound = look(source, path, photos[12:])
    place = 7
    broken = look(source, wrecked("tflite", path, place, coarse), photos[12:])
    assert broken.layers[0].layer == weighted_layers(source.model)[place] == "conv_dw_4"
    assert sound.layers[0].layer != "conv_dw_4"
    # The whole network is seen, and its logits lose what the file loses.
    assert {*weighted_layers(source.model)} <= {layer.layer for layer in sound.layers}


def test_what_other_precisions_lose_is_told_as_well(demo_artefacts: Path, pictures: Path) -> None:
    source, photos = load_source(SourceRequest("demo")), sorted(pictures.iterdir())[:4]
    worst = {}
    for target in ("float32.tflite", "float16.tflite", "dynamic.tflite", "float32.onnx"):
        found = layers.by_layer(demo_artefacts / f"demo.{target}", source, photos)
        assert {*weighted_layers(source.model)} <= {layer.layer for layer in found.layers}
        worst[target] = found.layers[0].own_sqnr
    assert worst["float32.tflite"] > 100 < worst["float32.onnx"]
    assert 100 > worst["float16.tflite"] > 50 > worst["dynamic.tflite"] > 30


def test_another_model_is_refused(demo_artefacts: Path, tiny_model: Path, pictures: Path) -> None:
    labels = str(tiny_model.with_name("labels.txt"))
    other = load_source(
        SourceRequest(str(tiny_model), pixels=InputOptions("imagenet", "tf"), labels=labels)
    )
    with pytest.raises(UsageError, match="whose weights are not those of tiny"):
        layers.by_layer(demo_artefacts / "demo.int8.tflite", other, [next(pictures.iterdir())])
    with pytest.raises(UsageError, match="no readable image"):
        layers.by_layer(demo_artefacts / "demo.int8.tflite", load_source(SourceRequest("demo")), [])


SOUND = {
    "own_sqnr": 20.0,
    "floor": 45.0,
    "excess": 25.0,
    "clipped": 0.0,
    "spread": 2.0,
    "crest": 5.0,
    "factor": 1.0,
    "kernel_scales": 8,
    "channels": 8,
    "quantised": True,
    "kind": "Conv2D",
    "method": "stock",
}

ADVICE: list[tuple[dict[str, Any], str]] = [
    ({"own_sqnr": 31.0}, ""),
    ({"clipped": 0.02}, "2.0 % of its values are outside its range: calibrate with"),
    ({"clipped": 0.02, "factor": 3.0}, "2.0 % of its values are clipped, because preparation"),
    ({"kernel_scales": 1}, "25 dB more noise than its steps make, and its kernel has one scale"),
    ({}, "25 dB more noise than its steps make, from its weights, which are stock ones (prepared"),
    ({"method": "prepared"}, "25 dB more noise than its steps make, although its weights were"),
    ({"excess": 1.0, "kind": "Multiply"}, "a gate of 20 dB"),
    ({"excess": 1.0, "spread": 9.0}, "its largest channel has 9 times the range of the median"),
    ({"excess": 1.0, "crest": 20.0}, "its peak is 20 times its root mean square"),
    ({"excess": 1.0, "floor": 21.0}, "its 8-bit steps allow 21 dB only"),
    ({"quantised": False}, "20 dB of its own"),
]


@pytest.mark.parametrize(("changes", "says"), ADVICE)
def test_advice_follows_from_what_was_measured(changes: dict[str, Any], says: str) -> None:
    given = advice({**SOUND, **changes})
    assert given.startswith(says)
    assert bool(given) == bool(says)


@pytest.mark.slow
def test_the_sums_are_those_of_the_definition(make: Make) -> None:
    """The first layer and the logits, once more by hand."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from kedge_convert.images import tensors
    from kedge_convert.toolkit import require
    from kedge_runtime.drift.statistics import sqnr

    source, path, photos = make("residual", "tflite", "stock")
    found = {layer.layer: layer for layer in look(source, path, photos).layers}
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    (first,) = (
        each for each in interpreter.get_tensor_details() if each["name"] == found["conv2d"].tensor
    )
    spec = replace(source.input, tensor=contract_of(source, path, "stock").input.tensor)
    ends: dict[str, list[NDArray[np.float32]]] = {"entered": [], "conv2d": [], "logits": []}
    for tensor in tensors(photos, spec):
        interpreter.set_tensor(taken["index"], tensor)
        interpreter.invoke()
        for name, each in zip(ends, (taken, first, given), strict=True):
            step, zero = each["quantization"]
            value = interpreter.get_tensor(each["index"]).astype(np.float32)
            ends[name].append((value - np.float32(zero)) * np.float32(step))
    whole = {name: np.concatenate(rows) for name, rows in ends.items()}
    original = np.concatenate(list(tensors(photos, source.input)))
    assert found["logits"].sqnr == pytest.approx(sqnr(source.model(original), whole["logits"]))
    relu = require("keras").Model(source.model.inputs[0], source.model.get_layer("re_lu").output)
    for inputs, value in ((original, found["conv2d"].sqnr), (whole["entered"], None)):
        wanted = value if value is not None else found["conv2d"].own_sqnr
        assert wanted == pytest.approx(sqnr(relu(inputs), whole["conv2d"]), abs=1e-3)


@pytest.mark.slow
def test_the_command_names_layers_and_draws_them(
    demo_artefacts: Path, pictures: Path, tmp_path: Path, kedge: Run
) -> None:
    report = tmp_path / "report.json"
    path = demo_artefacts / "demo.int8.onnx"
    words = ("drift", path, "--images", pictures, "--truth", "none", "--by-layer", 4)
    code, out, err = kedge(*words, "--against", "demo", "--out", report)
    assert code in (0, 3), err
    (found,) = json.loads(report.read_text())["by_layer"]
    assert found["images"] == 4
    assert found["layers"][0]["layer"] in out
    assert (tmp_path / "report.demo.int8.onnx.svg").read_text().startswith("<svg")
    code, _, err = kedge(*words, "--against", tmp_path / "reference.npz")
    assert code == 2
    assert "--by-layer: needs the float model" in err


def test_json_and_image(demo_artefacts: Path, pictures: Path) -> None:
    source, photos = load_source(SourceRequest("demo")), sorted(pictures.iterdir())[:4]
    ticks: list[int] = []
    path = demo_artefacts / "demo.int8.tflite"
    found = layers.by_layer(path, source, photos, lambda: ticks.append(1))
    assert len(ticks) == len(photos) == found.images
    plain = json.loads(json.dumps(layers.plain(found), allow_nan=False))
    assert plain["layers"][0]["layer"] == found.layers[0].layer
    drawn = ET.fromstring(layer_show.svg(found))
    titles = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}title")]
    in_order = sorted(found.layers, key=lambda layer: layer.position)
    assert [title.partition(":")[0] for title in titles] == [layer.layer for layer in in_order]
    lines = layer_show.table(found).splitlines()
    assert lines[2].split()[0] == found.layers[0].layer
    assert all(len(line) <= 80 for line in lines if not line.startswith("    "))
