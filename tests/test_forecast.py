"""The Edge TPU forecast: against the compiler's own files, and each rule by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_convert.device.forecast import EVERY, LIMITS, CompilerForecast, forecast
from kedge_models.devices import device
from kedge_runtime.artefact.content import read_content
from kedge_runtime.modelfile.network import Network, read_network
from networks import Builder

CORAL = device("coral")
# Files of the real compiler beside what they were made from.
PAIRS = (
    "deeplab_mobilenet_edgetpu_slim_cityscapes_quant",
    "deeplabv3_mnv2_dm05_pascal_quant",
    "keras_lstm_mnist_ptq",
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.5_160_quant",
    "movenet_single_pose_lightning_ptq",
)
ON_CPU = {
    "deeplab_mobilenet_edgetpu_slim_cityscapes_quant": 2,
    "deeplabv3_mnv2_dm05_pascal_quant": 8,
    "movenet_single_pose_lightning_ptq": 59,
}


def test_every_pair_is_in_the_table(shared: Path) -> None:
    found = {path.name for path in (shared / "data" / "edgetpu").glob("*_edgetpu.tflite")}
    assert found == {f"{name}_edgetpu.tflite" for name in PAIRS}


@pytest.mark.parametrize("name", PAIRS)
def test_the_forecast_is_the_compilers_mapping(shared: Path, name: str) -> None:
    original = shared / "data" / "edgetpu" / f"{name}.tflite"
    left = _left_on_the_cpu(original.with_name(f"{name}_edgetpu.tflite"))
    network = read_network(read_content(original))
    found = {_identity(network, fate) for fate in forecast(network, CORAL) if fate.level == "stays"}
    assert found == left
    assert len(left) == ON_CPU.get(name, 0)
    assert all(fate.level != "uncertain" for fate in forecast(network, CORAL))


def _left_on_the_cpu(compiled: Path) -> set[tuple[str, ...]]:
    """Return a compiled file's CPU operators by the names of their outputs, by another reader."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(compiled.read_bytes(), 0))
    graph = model.subgraphs[0]
    custom = [code.customCode for code in model.operatorCodes]
    assert custom.count(b"edgetpu-custom-op") == 1
    on_cpu = [node for node in graph.operators if custom[node.opcodeIndex] is None]
    return {tuple(graph.tensors[i].name.decode() for i in node.outputs) for node in on_cpu}


def _identity(network: Network, fate: CompilerForecast) -> tuple[str, ...]:
    written = network.outputs_of(network.operators[fate.operator])
    return tuple(value.name for value in written)


def test_an_original_of_coral_maps_whole(shared: Path) -> None:
    network = read_network(
        read_content(shared / "data" / "edgetpu" / "tf2_mobilenet_v2_1.0_224_ptq.tflite")
    )
    assert {fate.level for fate in forecast(network, CORAL)} == {"maps"}


Made = Callable[[Builder], Any]


def _one(kind: str, shape: tuple[int, ...], after: tuple[int, ...], **options: int) -> Made:
    def make(build: Builder) -> None:
        build.run(kind, [build.tensor(*shape)], build.tensor(*after), **options)

    return make


def _with(
    kind: str, shape: tuple[int, ...], after: tuple[int, ...], numbers: Any, **kw: Any
) -> Made:
    options = {key: value for key, value in kw.items() if key not in ("scales", "first")}

    def make(build: Builder) -> None:
        inputs = [build.tensor(*shape), build.constant(np.asarray(numbers), kw.get("scales", 1))]
        ordered = inputs[::-1] if kw.get("first") else inputs
        build.run(kind, ordered, build.tensor(*after), **options)

    return make


def _slice(strides: list[int], **masks: int) -> Made:
    def make(build: Builder) -> None:
        ends = [build.constant(np.asarray(each, np.int32)) for each in ([0, 0], [1, 8], strides)]
        build.run("STRIDED_SLICE", [build.tensor(1, 8), *ends], build.tensor(1, 8), **masks)

    return make


def _types(dtype: str, kind: str = "ADD") -> Made:
    def make(build: Builder) -> None:
        build.run(kind, [build.tensor(1, 8, dtype=dtype)], build.tensor(1, 8, dtype=dtype))

    return make


def _unknown_weights(build: Builder) -> None:
    inputs = [build.tensor(*PICTURE), build.tensor(1, 1, 1, 4)]
    build.run("CONV_2D", inputs, build.tensor(*PICTURE))


KERNEL = np.ones((4, 1, 1, 4), np.int8)
MATRIX = np.ones((6, 8), np.int8)
ZEROS = np.zeros((1, 2, 2, 4), np.int8)
AXES = np.asarray([1, 2], np.int32)
PICTURE = (1, 8, 8, 4)

CASES: list[tuple[str, Made, str]] = [
    # The list.
    ("maps", _one("RELU6", PICTURE, PICTURE), ""),
    ("stays", _one("HARD_SWISH", PICTURE, PICTURE), "list of operators"),
    ("stays", _one("my-own-op", PICTURE, PICTURE), "list of operators"),
    # Types and shapes.
    ("maps", _types("uint8"), ""),
    ("stays", _types("float32"), "works on float32"),
    ("stays", _types("int16"), "works on int16"),
    ("maps", _types("int16", "UNIDIRECTIONAL_SEQUENCE_LSTM"), ""),
    ("stays", _one("RELU", (-1, 8), (-1, 8)), "isn't fixed"),
    ("stays", _one("RELU", (2, 8, 8, 4), (2, 8, 8, 4)), "three dimensions"),
    ("maps", _one("RELU", (8, 8, 4), (8, 8, 4)), ""),
    # Pools and concatenations.
    ("maps", _one("MAX_POOL_2D", PICTURE, (1, 4, 4, 4), activation=0), ""),
    ("stays", _one("MAX_POOL_2D", PICTURE, (1, 4, 4, 4), activation=1), "fused activation"),
    ("stays", _one("AVERAGE_POOL_2D", PICTURE, (1, 1, 1, 4), activation=3), "fused activation"),
    ("maps", _with("CONCATENATION", (1, 2, 2, 4), (1, 2, 2, 8), ZEROS), ""),
    ("stays", _with("CONCATENATION", (1, 2, 2, 4), (1, 2, 2, 8), ZEROS + 1), "isn't zeros"),
    # Convolutions.
    ("maps", _with("CONV_2D", PICTURE, PICTURE, KERNEL, scales=4), ""),
    ("maps", _with("CONV_2D", PICTURE, PICTURE, KERNEL, dilation_w=2, dilation_h=2), ""),
    ("stays", _with("CONV_2D", PICTURE, PICTURE, KERNEL, dilation_w=2, dilation_h=1), "dilation"),
    ("stays", _unknown_weights, "aren't constant"),
    # Dense layers.
    ("maps", _with("FULLY_CONNECTED", (1, 8), (1, 6), MATRIX), ""),
    ("uncertain", _with("FULLY_CONNECTED", (1, 8), (1, 6), MATRIX, scales=6), "scale per output"),
    ("stays", _with("FULLY_CONNECTED", (1, 8), (1, 6), MATRIX, weights_format=1), "shuffled"),
    ("stays", _with("FULLY_CONNECTED", (1, 2, 8), (1, 2, 6), MATRIX), "more than one dimension"),
    # Reductions.
    ("maps", _with("MEAN", PICTURE, (1, 4), AXES), ""),
    ("maps", _with("MEAN", PICTURE, (1, 8, 8), AXES[:1] * 3), ""),
    ("stays", _with("MEAN", (1, 8, 8, 6), (1, 8, 8), AXES[:1] * 3), "multiple of 4"),
    ("stays", _with("MEAN", (1, 8, 8, 6), (1, 8, 8), AXES[:1] * -1), "multiple of 4"),
    ("stays", _with("SUM", PICTURE, (8, 8, 4), AXES[:1] * 0), "over the batch"),
    ("stays", _with("REDUCE_MAX", PICTURE, (8, 8, 4), AXES[:1] * -4), "over the batch"),
    # Along the batch.
    ("maps", _one("PACK", (1, 8), (1, 1, 8), axis=1), ""),
    ("stays", _one("PACK", (1, 8), (1, 1, 8), axis=0), "along the batch"),
    ("maps", _with("PAD", (1, 8), (1, 9), np.asarray([[0, 0], [0, 1]], np.int32)), ""),
    ("stays", _with("PAD", (1, 8), (2, 8), np.asarray([[0, 1], [0, 0]], np.int32)), "along"),
    ("maps", _with("SPLIT", (1, 8), (1, 4), np.int32(1), first=True), ""),
    ("stays", _with("SPLIT", (1, 8), (1, 8), np.int32(0), first=True), "along the batch"),
    # Others.
    ("maps", _with("PRELU", PICTURE, PICTURE, np.ones((1, 1, 4), np.int8)), ""),
    ("stays", _with("PRELU", PICTURE, PICTURE, np.ones((8, 8, 4), np.int8)), "factor per pixel"),
    ("maps", _one("SOFTMAX", (1, 16_000), (1, 16_000)), ""),
    ("stays", _one("SOFTMAX", (1, 16_001), (1, 16_001)), "at most 16000"),
    ("stays", _one("SOFTMAX", (1, 2, 8), (1, 2, 8)), "at most 16000"),
    ("maps", _slice([1, 1]), ""),
    ("stays", _slice([1, 2]), "strides"),
    ("stays", _slice([1, 1], ellipsis_mask=1), "ellipsis"),
    ("stays", _slice([1, 1], new_axis_mask=2), "new axes"),
    ("maps", _one("RESIZE_BILINEAR", (1, 6, 6, 4), (1, 12, 12, 4)), ""),
    ("uncertain", _one("RESIZE_BILINEAR", (1, 6, 6, 4), (1, 18, 18, 4)), "published example"),
    ("stays", _one("RESIZE_NEAREST_NEIGHBOR", (1, 1, 1, 4), (1, 33, 33, 4)), "too far"),
    ("maps", _one("RESHAPE", (1, 1, 1, 5000), (1, 5000)), ""),
    ("maps", _one("RESHAPE", (1, 6, 6, 64), (1, 2304)), ""),
    ("uncertain", _one("TRANSPOSE", (1, 6, 6, 4), (1, 4, 6, 6)), "published logs"),
    ("uncertain", _one("RESHAPE", (1, 7, 7, 512), (1, 25088)), "more than published examples"),
]


@pytest.mark.parametrize(("level", "make", "reason"), CASES)
def test_each_rule_by_itself(level: str, make: Made, reason: str) -> None:
    build = Builder()
    make(build)
    (fate,) = forecast(build.build(0), CORAL)
    assert (fate.level, reason in fate.reason) == (level, True), fate


def test_every_check_objects_to_a_case() -> None:
    objected = set()
    for _, make, _ in CASES:
        build = Builder()
        make(build)
        network = build.build(0)
        (operator,) = network.operators
        checks = (*EVERY, *LIMITS.get(operator.kind, ()))
        objected |= {check for check in checks if check(network, operator) is not None}
    assert objected == {*EVERY, *(check for checks in LIMITS.values() for check in checks)}


def _levels(*kinds: str) -> list[str]:
    """Return the fates of a chain of operators."""
    build = Builder()
    place = build.tensor(1, 8)
    for kind in kinds:
        place = build.run(kind, [place], build.tensor(1, 8))
    return [fate.level for fate in forecast(build.build(0), CORAL)]


def test_everything_behind_a_break_stays() -> None:
    assert _levels("RELU", "SIN", "RELU", "RELU") == ["maps", "stays", "stays", "stays"]


def test_what_stays_before_the_segment_breaks_nothing() -> None:
    assert _levels("SIN", "RELU", "RELU", "COS") == ["stays", "maps", "maps", "stays"]


def test_a_branch_beside_the_break_maps() -> None:
    build = Builder()
    first = build.run("RELU", [build.tensor(1, 8)], build.tensor(1, 8))
    broken = build.run("SIN", [first], build.tensor(1, 8))
    beside = build.run("RELU6", [first], build.tensor(1, 8))
    build.run("ADD", [broken, beside], build.tensor(1, 8))
    found = forecast(build.build(0), CORAL)
    assert [fate.level for fate in found] == ["maps", "stays", "maps", "stays"]
    assert "behind SIN" in found[3].reason


def test_doubt_goes_on_behind_an_uncertain_operator() -> None:
    build = Builder()
    first = build.run("RELU", [build.tensor(1, 6, 6, 4)], build.tensor(1, 6, 6, 4))
    grown = build.run("RESIZE_BILINEAR", [first], build.tensor(1, 18, 18, 4))
    build.run("RELU", [grown], build.tensor(1, 18, 18, 4))
    found = forecast(build.build(0), CORAL)
    assert [fate.level for fate in found] == ["maps", "uncertain", "uncertain"]


def test_a_remedy_comes_with_what_has_one() -> None:
    build = Builder()
    build.run("HARD_SWISH", [build.tensor(1, 8)], build.tensor(1, 8))
    (fate,) = forecast(build.build(0), CORAL)
    assert fate.remedy == "convert with --rewrite hard-swish"
