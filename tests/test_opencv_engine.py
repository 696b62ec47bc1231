"""The OpenCV engine's own: what it reads of an ONNX graph, and which graphs it refuses."""

from pathlib import Path

import pytest

from kedge_runtime.artefact.content import read_content
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import EngineError, KedgeError
from kedge_runtime.modelfile import onnx as reader
from kedge_runtime.modelfile.network import Network, Value
from kedge_runtime.output import quiet

TINY = Path(__file__).parent / "models" / "tiny.onnx"


def _ports(graph: Network) -> tuple[list[Value], list[Value]]:
    return [graph.values[i] for i in graph.inputs], [graph.values[i] for i in graph.outputs]


def test_the_graph_reader_agrees_with_onnxruntime() -> None:
    pytest.importorskip("onnxruntime")
    engine = open_engine(read_content(TINY))
    graph = reader.read(memoryview(TINY.read_bytes()))
    ((taken,), (given,)) = _ports(graph)
    assert (taken.name, taken.shape, taken.dtype) == ("input", engine.input_shape, "float32")
    assert (given.name, given.shape, given.dtype) == ("logits", engine.output_shape, "float32")
    assert {each.kind for each in graph.operators} == {"ReduceMean", "MatMul"}


def test_the_graph_reader_agrees_with_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    ends = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, ["batch", 3, 300, 8]),
        helper.make_tensor_value_info("weights", onnx.TensorProto.INT8, [5]),
        helper.make_tensor_value_info("y", onnx.TensorProto.INT64, []),
    ]
    weights = helper.make_tensor("weights", onnx.TensorProto.INT8, [5], [1, 2, 3, 4, 5])
    node = helper.make_node("MatMulInteger", ["x", "weights"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:2], ends[2:], [weights]))
    graph = reader.read(memoryview(model.SerializeToString()))
    inputs, outputs = _ports(graph)
    assert [(e.name, e.shape, e.dtype) for e in inputs] == [("x", (-1, 3, 300, 8), "float16")]
    assert [(e.name, e.shape, e.dtype) for e in outputs] == [("y", (), "int64")]
    assert {each.kind for each in graph.operators} == {"MatMulInteger"}


@pytest.mark.parametrize("length", [0, 1, 20, 100, 200])
def test_opencv_refuses_half_a_model(length: int, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(TINY.read_bytes()[:length])
    with quiet(), pytest.raises(KedgeError) as caught:
        open_engine(read_content(path), EngineOptions(engine="opencv"))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_opencv_refuses_integers(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    ends = [
        helper.make_tensor_value_info(name, kind, [1, 4])
        for name, kind in (("x", onnx.TensorProto.FLOAT), ("y", onnx.TensorProto.UINT8))
    ]
    scale = helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [0.1])
    node = helper.make_node("QuantizeLinear", ["x", "scale"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [scale]))
    path = tmp_path / "int.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        EngineError, match="float32 models only, this one has QuantizeLinear; use onnx"
    ):
        open_engine(read_content(path), EngineOptions(engine="opencv"))
