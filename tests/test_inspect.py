"""Files read without an engine, against the readers that the toolkits bring."""

import pickle
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from conftest import Run
from kedge_runtime.artefact.content import read_content
from kedge_runtime.artefact.kinds import Precision
from kedge_runtime.errors import ArtefactError
from kedge_runtime.modelfile.check.check import check_model
from kedge_runtime.modelfile.network import Network, read_network
from kedge_runtime.modelfile.report import arena, precision_of, sizes, summarise
from kedge_runtime.modelfile.tflite_schema import DTYPES, OPERATORS, OPTIONS
from networks import Builder

MODELS = Path(__file__).parent / "models"
# By their names in the schema; the ones that aren't here are read but no rule asks for them.
CAMEL = {
    "stride_w": "strideW",
    "stride_h": "strideH",
    "dilation_w": "dilationWFactor",
    "dilation_h": "dilationHFactor",
    "activation": "fusedActivationFunction",
    "weights_format": "weightsFormat",
    "ellipsis_mask": "ellipsisMask",
    "new_axis_mask": "newAxisMask",
    "axis": "axis",
}

REAL = (
    "deeplab_mobilenet_edgetpu_slim_cityscapes_quant",
    "keras_lstm_mnist_ptq",
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.25_128_quant_edgetpu",
    "movenet_single_pose_lightning_ptq",
    "tf2_mobilenet_v2_1.0_224_ptq",
)


def test_the_names_are_the_schemas() -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    for ours, theirs in ((OPERATORS, schema.BuiltinOperator), (DTYPES, schema.TensorType)):
        words = {v: k for k, v in vars(theirs).items() if not k.startswith("_")}
        assert [words[i].lower() for i in range(len(words))] == [name.lower() for name in ours]


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_reads_as_by_the_schemas_own_classes(shared: Path, name: str) -> None:
    _check_tflite(shared / "data" / "edgetpu" / f"{name}.tflite")


def test_a_small_file_reads_as_by_the_schemas_own_classes() -> None:
    _check_tflite(MODELS / "tiny.tflite")


def _check_tflite(path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph, network = model.subgraphs[0], read_network(read_content(path))
    assert (list(network.inputs), list(network.outputs)) == (
        list(graph.inputs),
        list(graph.outputs),
    )
    for value, tensor in zip(network.values, graph.tensors, strict=True):
        data = model.buffers[tensor.buffer].data
        whole = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        assert value.shape == tuple([] if whole is None else whole)
        assert DTYPES.index(value.dtype) == tensor.type
        assert value.name == tensor.name.decode()
        assert (b"" if value.data is None else bytes(value.data)) == bytes(
            [] if data is None else data
        )
        scales = getattr(tensor.quantization, "scale", None)
        assert (value.scales is None) == (scales is None)
        if value.scales is not None and scales is not None:
            found = (value.scales.count, value.scales.smallest, value.scales.largest)
            assert found == (len(scales), scales.min(), scales.max())
            assert value.scales.zero_point == tensor.quantization.zeroPoint[0]
    for operator, node in zip(network.operators, graph.operators, strict=True):
        code = model.operatorCodes[node.opcodeIndex]
        name = OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        assert operator.kind == (code.customCode.decode() if code.customCode else name)
        assert operator.version == code.version
        assert (operator.inputs, operator.outputs) == (tuple(node.inputs), tuple(node.outputs))
        options = {key: getattr(node.builtinOptions, CAMEL[key]) for key in operator.options}
        assert operator.options == options


def test_every_option_has_a_name_in_the_schema() -> None:
    assert {name for options in OPTIONS.values() for name in options} == CAMEL.keys()


def test_an_onnx_file_reads_as_by_onnx(demo_artefacts: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for path in (MODELS / "tiny.onnx", demo_artefacts / "demo.int8.onnx"):
        graph, network = onnx.load(path).graph, read_network(read_content(path))
        held = {tensor.name: tensor for tensor in graph.initializer}
        names = [value.name for value in network.values]
        assert [names[i] for i in network.inputs] == [each.name for each in graph.input]
        assert [names[i] for i in network.outputs] == [each.name for each in graph.output]
        for operator, node in zip(network.operators, graph.node, strict=True):
            assert operator.kind == node.op_type
            assert [names[i] if i >= 0 else "" for i in operator.inputs] == list(node.input)
            assert [names[i] for i in operator.outputs] == list(node.output)
        for value in network.values:
            assert value.constant == (value.name in held)
            if value.constant:
                numbers = onnx.numpy_helper.to_array(held[value.name])
                assert (value.shape, value.dtype) == (numbers.shape, numbers.dtype.name)


def test_quantised_onnx_weights_have_a_scale_per_channel(demo_artefacts: Path) -> None:
    rows = summarise(read_network(read_content(demo_artefacts / "demo.int8.onnx"))).quantisation
    weights = [(row.kind, row.granularity, row.count) for row in rows if row.role == "weights"]
    assert ("Conv", "channel", 28) in weights


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx"])
def test_the_parts_of_a_sealed_file_are_all_of_it(artefacts: Path, name: str) -> None:
    path = artefacts / name
    found = sizes(read_content(path), read_network(read_content(path)))
    labels = {"labels"} if path.suffix == ".tflite" else set()
    assert {"graph", "weights", "contract", "golden", "digest"} | labels == found.keys()
    assert sum(found.values()) == path.stat().st_size
    assert all(size > 0 for size in found.values())
    bare = (MODELS / name).stat().st_size
    # A zip has a directory, counted with the graph.
    assert abs(found["graph"] + found["weights"] - bare) < 400


def test_metadata_without_a_key_is_a_part_and_broken_metadata_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    # metadata_props (field 14) of: a value alone; a key in Latin-1; a varint without an end.
    for entry, part in ((b"\x12\x01x", "(no key)"), (b"\n\x01\xe9", "\ufffd"), (b"\x08\xff", "")):
        size = len(entry).to_bytes(1, "little")
        path.write_bytes((MODELS / "tiny.onnx").read_bytes() + b"\x72" + size + entry)
        network = read_network(read_content(path))
        if part:
            assert sizes(read_content(path), network)[part] == len(entry)
    with pytest.raises(ArtefactError, match=r"foreign\.onnx: no readable \.onnx model"):
        sizes(read_content(path), network)


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx"])
def test_damaged_bytes_are_refused_or_read_but_never_a_bug(tmp_path: Path, name: str) -> None:
    whole = (MODELS / name).read_bytes()
    path = tmp_path / name
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        content = bytearray(whole[: rng.integers(1, len(whole))] if trial % 2 else whole)
        for at in rng.integers(0, len(content), 4):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            summarise(read_network(read_content(path)))
        except ArtefactError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        struct.pack("<I4s", 2**31, b"TFL3"),
        struct.pack("<I4sii", 8, b"TFL3", 2**31 - 1, 0),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"bad\.tflite: no readable \.tflite model"):
        read_network(read_content(path))


def test_a_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    scale = struct.pack("<f", 0.007843137718737125)
    content = (MODELS / "tiny.tflite").read_bytes()
    path = tmp_path / "bad.tflite"
    assert content.count(scale) == 1
    path.write_bytes(content.replace(scale, struct.pack("<f", float("nan"))))
    with pytest.raises(ArtefactError, match="a tensor's scale is no number"):
        read_network(read_content(path))


def _chain(*sizes_in_bytes: int) -> Network:
    """Return a chain of operators between tensors of these sizes."""
    build = Builder()
    places = [build.tensor(1, size) for size in sizes_in_bytes]
    for before, after in pairwise(places):
        build.run("RELU", [before], after)
    return build.build(places[0])


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        # Two neighbours live at a time; 64 bytes are the grain.
        (_chain(64, 64), 128),
        (_chain(1, 64), 128),
        (_chain(64, 128, 64, 256), 320),
        # The third tensor takes the first one's place beside the second.
        (_chain(640, 64, 640), 704),
    ],
)
def test_the_arena_of_a_chain(network: Network, expected: int) -> None:
    assert arena(network) == expected


def test_a_tensor_that_skips_ahead_keeps_its_place() -> None:
    build = Builder()
    first, second, third, last = (build.tensor(1, 64) for _ in range(4))
    build.run("RELU", [first], second)
    build.run("RELU", [second], third)
    build.run("ADD", [first, third], last)
    assert arena(build.build(first)) == 192


def test_no_arena_without_shapes() -> None:
    build = Builder()
    build.run("RELU", [build.tensor(-1, 64)], build.tensor(1, 64))
    assert arena(build.build(0)) is None


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_the_tensors_tell_the_precision(demo_artefacts: Path, precision: Precision) -> None:
    paths = sorted(demo_artefacts.glob(f"demo.{precision}.*"))
    assert paths
    for path in paths:
        assert precision_of(read_network(read_content(path))) == precision


OTHERS = {
    "an empty file": b"",
    "a zip archive": b"PK\x03\x04" + bytes(40),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(40),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a web page or XML": b"\n<!DOCTYPE html><html></html>",
    "a JSON file": b'{"format": "layers-model"}',
    "a Python pickle": pickle.dumps({"weights": [1.0]}),
    "an image": b"\xff\xd8\xff\xe0" + bytes(40),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_kind_of_file_is_named(tmp_path: Path, form: str, what: str) -> None:
    path = tmp_path / f"it.{form}"
    path.write_bytes(OTHERS[what])
    for reads in (read_network, check_model):
        with pytest.raises(ArtefactError, match=f"no readable .{form} model but {what}: "):
            reads(read_content(path))


def test_a_model_of_the_other_format_is_named(kedge: Run, tmp_path: Path, form: str) -> None:
    other = {"onnx": "tflite", "tflite": "onnx"}[form]
    path = tmp_path / f"it.{form}"
    path.write_bytes((MODELS / f"tiny.{other}").read_bytes())
    code, _, err = kedge("inspect", path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"rename it to .{other}" in err


def test_damage_is_told_in_words_not_in_a_key(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"it.{form}"
    path.write_bytes(b"\x0b\x0b\x0b")
    with pytest.raises(
        ArtefactError, match=r"\(damaged; it begins with 0b 0b 0b\); copy it again|TFL3"
    ):
        read_network(read_content(path))
